package strict

import (
	"fmt"
	"strings"
	"testing"
)

func noEnv(string) string { return "" }

// flat lists the keys and texts of the mapping at the key "x" of text.
func flat(t *testing.T, text string) (string, error) {
	t.Helper()
	p := new(Problems)
	d := Parse("f.yaml", []byte(text), noEnv, p)
	var out []string
	for _, e := range d.Entries(d.Root(), "") {
		if e.Key != "x" {
			continue
		}
		for _, e := range d.Entries(e.Value, "x") {
			v, _ := d.Text(e.Value, "x."+e.Key, "text")
			out = append(out, fmt.Sprintf("%s=%s@%d", e.Key, v, e.Line))
		}
	}
	return strings.Join(out, " "), p.Err()
}

func TestMergeKeysAreResolvedAndTheExplicitOrEarlierWins(t *testing.T) {
	got, err := flat(t, "a: &a {k: 1, l: 1}\nb: &b {l: 2, m: 2}\nx:\n  n: 3\n  <<: [*b, *a]\n  k: 3\n")
	if want := "n=3@4 k=3@6 l=2@2 m=2@2"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := flat(t, "a: &a {k: 1}\nx: *a\n"); err != nil || got != "k=1@1" {
		t.Errorf("alias: got %q, %v", got, err)
	}
}

func TestBadDocumentsAreRefusedWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"x: {a: 1, a: 2}":        `f.yaml:1: x: key "a" stands here twice`,
		"x:\n  a: 1\n a: 2":      "f.yaml: line 2",
		"x: {}\n---\ny: {}":      "f.yaml:3: a second document",
		"- x":                    "f.yaml:1: wants keys below it, but has a list",
		"x: {[a]: 1}":            "f.yaml:1: x: a key must be plain text",
		"x: {a: {b: 1}}":         "f.yaml:1: x.a: wants text, but has keys of its own",
		"x: &x {<<: *x, a: 1}":   "f.yaml:1: x: merge keys nest deeper than 32",
		"x: {a: \"${NONE}\"}":    "the environment variable NONE is empty or not set",
		"x: {a: \"${NONE:\"}":    "${NONE has no closing brace",
		"x: {<<: text, a: 1}":    "f.yaml:1: x: wants keys below it",
		"x:\n  a: \"\\xZZ\"\n":   "f.yaml: line 2",
		"x: *nothing":            "f.yaml: unknown anchor",
		"x: {a: \"tab\": \"b\"}": "f.yaml: did not find expected",
	} {
		if got, err := flat(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "x:\n", "x: ~\n"} {
		if got, err := flat(t, text); err != nil || got != "" {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
}

func TestAliasesThatMultiplyAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 {k: 1}\n")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&b, "a%d: &a%d {<<: [%s]}\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 50), ","))
	}
	b.WriteString("x: *a19\n")
	if _, err := flat(t, b.String()); err == nil || !strings.Contains(err.Error(), "once its aliases are followed") {
		t.Errorf("err = %v", err)
	}
}

func TestManyTenantsMayShareOnePlan(t *testing.T) {
	var b strings.Builder
	b.WriteString("plan: &plan\n")
	for i := range 60 {
		fmt.Fprintf(&b, "  limit_%d: %d\n", i, i)
	}
	b.WriteString("tenants:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  t%d: *plan\n", i)
	}
	p := new(Problems)
	d := Parse("f.yaml", []byte(b.String()), nil, p)
	n := 0
	for _, e := range d.Entries(d.Root(), "")[1:] {
		for _, tenant := range d.Entries(e.Value, "") {
			n += len(d.Entries(tenant.Value, ""))
		}
	}
	if p.Err() != nil || n != 600_000 {
		t.Errorf("%d limits, %v", n, p.Err())
	}
}

func TestNearest(t *testing.T) {
	known := []string{"ingestion_rate", "ingestion_burst_size", "max_global_series_per_user", "target"}
	for name, want := range map[string]string{
		"ingestion-rate": "ingestion_rate", "ingestion_rat": "ingestion_rate", "TARGET": "target", "tagret": "target",
		"max_series_per_user": "max_global_series_per_user", "zebra": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzDoc(f *testing.F) {
	f.Add([]byte("x: &a {<<: [*a, *a], b: \"${A:b}\"}"))
	f.Add([]byte("a: &a [1, *a]\nx: {k: *a, l: ${A}}"))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = flat(t, string(data)) })
}
