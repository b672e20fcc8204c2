package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/tools/house"
)

// load makes a module of one room from source and reads it.
func load(t *testing.T, source string) *house.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/x\n\ngo 1.26\n", "pkg/room/room.go": source} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := house.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestMetricsAreReadThroughConstantsAndHelpers(t *testing.T) {
	tree := load(t, `package room

const prefix = "amphora_" + "room_"

func newMetrics(reg R) {
	f := promauto.With(reg)
	counter := func(name, help string) C {
		return f.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	counter("a_total", "A.")
	counter("b_total", "B "+
		"on two lines.")
	f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "amphora", Name: "c", Help: "C."}, []string{"tenant", "reason"})
	f.NewHistogram(latency("amphora_d_seconds", "D."))
	vec("e_total", "x", "y")
	const name = "amphora_g"
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: "G.", ConstLabels: prometheus.Labels{"kind": "x"}}, value)
	desc := prometheus.NewDesc("amphora_f", "F.", []string{"z"}, nil)
}

func vec(name string, labels ...string) { prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name}, labels) }

func latency(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Name: name, Help: help}
}
`)
	got, err := metrics(tree)
	if err != nil {
		t.Fatal(err)
	}
	want := []metric{
		{"amphora_c", "gauge", "C.", []string{"tenant", "reason"}, "room"},
		{"amphora_d_seconds", "histogram", "D.", nil, "room"},
		{"amphora_f", "gauge", "F.", []string{"z"}, "room"},
		{"amphora_g", "gauge", "G.", []string{"kind"}, "room"},
		{"amphora_room_a_total", "counter", "A.", nil, "room"},
		{"amphora_room_b_total", "counter", "B on two lines.", nil, "room"},
		{"amphora_room_e_total", "counter", "", []string{"x", "y"}, "room"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAMetricWhoseNameIsUnknownIsAnError(t *testing.T) {
	for _, source := range []string{
		"package room\n\nvar x = prometheus.NewCounter(prometheus.CounterOpts{Name: name()})\n",
		"package room\n\nfunc f(name string) { prometheus.NewCounter(prometheus.CounterOpts{Name: name}) }\n",
	} {
		if _, err := metrics(load(t, source)); err == nil || !strings.Contains(err.Error(), "pkg/room/room.go") {
			t.Errorf("%s: got %v, want an error that names the file", source, err)
		}
	}
}

func TestErrorIDsAreFoundWhereverTheyAreWritten(t *testing.T) {
	found := errorIDs(load(t, `package room

const declared errs.ID = "in-a-constant"

func a() error { return errs.WithID(errs.Invalid, "direct", "", "series %s has %5.2f", s, f) }
func b() error { return errs.Limit(errs.RateLimited, "limit", flag, key, "too fast") }
func c(kind errs.Kind, id errs.ID) error { return errs.WithID(kind, id, "", "%s", x) }
func d() error { return c(errs.BodyTooLarge, "through-a-function") }
func e() (errs.ID, error) { return "returned", nil }

func g() {
	for _, row := range []struct {
		err error
		id  errs.ID
	}{{x, "in-a-row"}} {
	}
}
`))
	got := map[string]errorID{}
	for _, e := range found {
		got[e.id] = e
	}
	for _, want := range []errorID{
		{"direct", "invalid", "series … has …", "room"},
		{"limit", "rate limited", "too fast", "room"},
		{"through-a-function", "body too large", "", "room"},
		{"in-a-constant", "", "", "room"},
		{"in-a-row", "", "", "room"},
		{"returned", "", "", "room"},
	} {
		if got[want.id] != want {
			t.Errorf("got %+v, want %+v", got[want.id], want)
		}
	}
	if len(found) != 6 {
		t.Errorf("found %d, want 6: %+v", len(found), found)
	}
}

func TestCheckWritesNothingAndNamesTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reference", "x.md")
	if err := settle(path, []byte("new"), true); err == nil || !strings.Contains(err.Error(), "make docs") {
		t.Errorf("a missing page: got %v, want the remedy", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a check wrote the page")
	}
	for _, check := range []bool{false, true} {
		if err := settle(path, []byte("new"), check); err != nil {
			t.Errorf("check %v: %v", check, err)
		}
	}
}

func TestACellStaysInItsCell(t *testing.T) {
	var b bytes.Buffer
	if err := table(&b, []string{"a"}, [][]string{{"x|y\nz"}}); err != nil {
		t.Fatal(err)
	}
	if want := "| a |\n|---|\n| x\\|y z |\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestAnIDHasOneRowHoweverManyPlacesRaiseIt(t *testing.T) {
	got := idRows([]errorID{{"b", "", "", "two"}, {"a", "invalid", "x", "two"}, {"a", "", "", "one"}, {"a", "invalid", "y", "one"}})
	want := [][]string{
		{"[`a`](../runbooks.md#err-amphora-a)", "invalid", "x; or: y", "one, two"},
		{"[`b`](../runbooks.md#err-amphora-b)", "", "", "two"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
