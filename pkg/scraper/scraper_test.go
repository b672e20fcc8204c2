package scraper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// store is what scrapers write into and where they are defined.
type store struct {
	mu      sync.Mutex
	defs    []Definition
	members []string
	broken  bool
	reports map[string]string             // by scraper and revision
	last    map[string]map[string]float64 // last value by tenant and series
	writers map[string]map[string]bool    // of a scraper's samples, by tenant
}

func (s *store) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// process starts a process that runs scrapers.
func (s *store) process(t *testing.T, self string) *Scraper {
	t.Helper()
	cfg := defaults(t)
	cfg.AllowedNetworks, cfg.MinInterval, cfg.PollInterval = []string{"127.0.0.0/8"}, 100*time.Millisecond, 200*time.Millisecond
	x, err := New(cfg, Deps{
		Logger: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Self: self,
		Alive: func() (out []string, err error) {
			s.with(func() { out = append(out, s.members...) })
			return out, nil
		},
		List: func(context.Context) (out []Definition, err error) {
			s.with(func() {
				if s.broken {
					err = errors.New("broken")
				}
				out = append(out, s.defs...)
			})
			return out, err
		},
		Report: func(_ context.Context, id, revision, problem string) error {
			s.with(func() { s.reports[id+" "+revision] = problem + "." })
			return nil
		},
		Push: func(_ context.Context, id tenant.ID, req *remotewrite.Request) error { return s.push(self, id, req) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := services.StopAndAwaitTerminated(context.Background(), x); err != nil {
			t.Error(err)
		}
	})
	return x
}

func (s *store) push(self string, id tenant.ID, req *remotewrite.Request) error {
	var r writev2.Request
	if err := r.Unmarshal(req.Body); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[string(id)] == nil {
		s.last[string(id)], s.writers[string(id)] = map[string]float64{}, map[string]bool{}
	}
	s.writers[string(id)][self] = true
	for _, ts := range r.Timeseries {
		var b strings.Builder
		for i := 0; i+1 < len(ts.LabelsRefs); i += 2 {
			fmt.Fprintf(&b, "%s=%s,", r.Symbols[ts.LabelsRefs[i]], r.Symbols[ts.LabelsRefs[i+1]])
		}
		for _, x := range ts.Samples {
			s.last[string(id)][b.String()] = x.Value
		}
	}
	return nil
}

func newStore() *store {
	return &store{members: []string{"a"}, reports: map[string]string{}, last: map[string]map[string]float64{}, writers: map[string]map[string]bool{}}
}

// until waits for ok, which is called with the store locked.
func (s *store) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		done := false
		s.with(func() { done = ok() })
		if done {
			return
		}
		if time.Now().After(deadline) {
			s.with(func() { t.Fatalf("waited in vain for %s: %v, %v", what, s.reports, s.last) })
		}
	}
}

func exporter(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("# TYPE things gauge\nthings{kind=\"x\"} 5\n"))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func definition(id, revision, target string) Definition {
	return Definition{ID: id, Workspace: "ws-" + id, Revision: revision, Config: []byte("global: {scrape_interval: 200ms, scrape_timeout: 200ms, external_labels: {outer: \"1\", kind: no}}\n" +
		"scrape_configs: [{job_name: j, static_configs: [{targets: [\"" + target + "\"]}]}]")}
}

func TestAScraperWritesIntoItsWorkspaceAndMarksItsSeriesWhenItIsDeleted(t *testing.T) {
	s, target := newStore(), exporter(t)
	s.defs = []Definition{definition("s1", "r1", target)}
	s.process(t, "a")
	series := "__name__=things,instance=" + target + ",job=j,kind=x,outer=1,"
	s.until(t, "a sample", func() bool { return s.last["ws-s1"][series] == 5 && s.reports["s1 r1"] == "." })
	s.until(t, "up", func() bool { return s.last["ws-s1"]["__name__=up,instance="+target+",job=j,kind=no,outer=1,"] == 1 })
	s.with(func() { s.defs = nil })
	s.until(t, "the end of the series", func() bool { return value.IsStaleNaN(s.last["ws-s1"][series]) })
}

func TestAConfigurationThatCannotRunLeavesTheOneBefore(t *testing.T) {
	s, target := newStore(), exporter(t)
	s.defs = []Definition{definition("s1", "r1", target)}
	s.process(t, "a")
	s.until(t, "the first", func() bool { return s.reports["s1 r1"] == "." })
	s.with(func() { s.defs[0].Revision, s.defs[0].Config = "r2", []byte("rule_files: [x]") })
	s.until(t, "the refusal", func() bool { return strings.Contains(s.reports["s1 r2"], "rule_files") })
	s.with(func() { s.last = map[string]map[string]float64{} })
	s.until(t, "samples of the first", func() bool { return len(s.last["ws-s1"]) > 0 })
	s.with(func() { s.defs[0] = definition("s1", "r3", exporter(t)) })
	s.until(t, "the third", func() bool { return s.reports["s1 r3"] == "." })
}

func TestAScraperRunsInOneProcessAndMovesWhenThatIsGone(t *testing.T) {
	s, target := newStore(), exporter(t)
	s.members = []string{"a", "b"}
	for i := range 6 {
		s.defs = append(s.defs, definition(fmt.Sprint("s", i), "r1", target))
	}
	s.process(t, "a")
	s.process(t, "b")
	s.until(t, "all", func() bool { return len(s.writers) == 6 })
	s.with(func() {
		for id, w := range s.writers {
			if want := owner(s.members, strings.TrimPrefix(id, "ws-")); len(w) != 1 || !w[want] {
				t.Errorf("%s is written by %v, not by %s alone", id, w, want)
			}
		}
		s.broken, s.members = true, []string{"b"} // nothing needs to be listed for that
	})
	s.until(t, "b to take over", func() bool {
		for _, w := range s.writers {
			if !w["b"] {
				return false
			}
		}
		return true
	})
	s.with(func() {
		for id, series := range s.last {
			failed := false // a scrape that a busy machine did not answer in time marks all but up, which is 0
			for name, v := range series {
				failed = failed || strings.HasPrefix(name, "__name__=up,") && v == 0
			}
			for name, v := range series {
				if math.IsNaN(v) && !failed {
					t.Errorf("%s: %s ended when the scraper moved", id, name)
				}
			}
		}
	})
}

func TestOnlyThoseOfAProcessThatIsGoneMove(t *testing.T) {
	members, count := []string{"a", "b", "c", "d"}, map[string]int{}
	for i := range 4000 {
		id := fmt.Sprint("s-", i)
		was := owner(members, id)
		count[was]++
		if now := owner([]string{"a", "b", "d"}, id); was != "c" && now != was {
			t.Fatalf("%s moved from %s to %s", id, was, now)
		}
	}
	for m, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("%s has %d of 4000", m, n)
		}
	}
	if owner(nil, "x") != "" {
		t.Error("somebody has what nobody can")
	}
}

func TestTargetsAreBounded(t *testing.T) {
	target := func(n int) *targetgroup.Group {
		return &targetgroup.Group{Targets: make([]model.LabelSet, n)}
	}
	whole := target(8)
	sets := map[string][]*targetgroup.Group{"a": {target(5)}, "b": {whole, target(3)}}
	if kept, cut := limit(sets, 10); kept != 10 || cut != 6 {
		t.Errorf("kept %d, cut %d", kept, cut)
	}
	if len(sets["a"][0].Targets) != 5 || len(sets["b"][0].Targets) != 5 || len(sets["b"][1].Targets) != 0 || len(whole.Targets) != 8 {
		t.Error("cut in the wrong place")
	}
}
