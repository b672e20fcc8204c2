package rules

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// server answers range queries with a series whose values are its times, and keeps the names of blocks.
type server struct {
	mu       sync.Mutex // guards what follows
	queries  []string
	points   int
	uploaded map[string]bool
	series   map[string]int // of blocks, by name
	samples  int            // of blocks that are native histograms
	exact    bool           // it tells native histograms whole
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/upload/block/"); ok {
		id, what, _ := strings.Cut(rest, "/")
		switch {
		case what == "start" && s.uploaded[id]:
			w.WriteHeader(http.StatusConflict)
		case what == "start":
			var meta struct {
				Stats struct{ NumSeries, NumHistogramSamples int }
			}
			_ = json.NewDecoder(r.Body).Decode(&meta)
			s.uploaded[id], s.series[id] = true, meta.Stats.NumSeries
			s.samples += meta.Stats.NumHistogramSamples
		case what == "check":
			_, _ = fmt.Fprint(w, `{"result":"complete"}`)
		}
		return
	}
	start, _ := strconv.ParseFloat(r.FormValue("start"), 64)
	end, _ := strconv.ParseFloat(r.FormValue("end"), 64)
	step, _ := strconv.ParseFloat(r.FormValue("step"), 64)
	s.queries = append(s.queries, r.FormValue("query"))
	var values []string
	for at := start; at <= end; at += step {
		values = append(values, fmt.Sprintf(`[%f,"%f"]`, at, at))
	}
	s.points += len(values)
	if len(values) > mostPoints {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if s.exact && work.AcceptsExact(r.Header.Get("Accept")) {
		whole := promql.Series{Metric: labels.FromStrings("job", "a")}
		for at := start; at <= end; at += step {
			whole.Histograms = append(whole.Histograms, promql.HPoint{T: int64(at * 1000), H: &histogram.FloatHistogram{Schema: 1, Count: at, Sum: 2 * at,
				PositiveSpans: []histogram.Span{{Offset: 2, Length: 1}}, PositiveBuckets: []float64{at}}})
		}
		w.Header().Set("Content-Type", work.ExactType)
		_ = work.Exact(promql.Matrix{whole}, nil, "", func(b []byte) { _, _ = w.Write(b) })
		return
	}
	if strings.Contains(r.FormValue("query"), "histogram") {
		_, _ = fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1,{"count":"1","sum":"1","buckets":[]}]]}]}}`)
		return
	}
	_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a"},"values":[%s]}]}}`, strings.Join(values, ","))
}

func invoke(t *testing.T, s *server, rules string, args ...string) (string, error) {
	t.Helper()
	web := httptest.NewServer(s)
	defer web.Close()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	e := &cli.Env{Out: &out, Err: &out, Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)}
	app := kingpin.New("t", "").Terminate(nil)
	Register(app, e)
	_, err := app.Parse(append([]string{"rules", "backfill", "--address", web.URL, "--id", "team", "--sleep-time", "1ms", path}, args...))
	if err == nil {
		err = e.Run(context.Background())
	}
	return out.String(), err
}

const recordings = `
groups:
- name: fast
  interval: 30s
  labels: {team: x}
  rules:
  - {record: up:30s, expr: sum(up), labels: {kind: y}}
  - {alert: Down, expr: up == 0}
- name: plain
  rules:
  - {record: up:1m, expr: sum(up)}
`

// TestABackfillMakesTheSameBlocksAgain: one for every two hours that are touched, with the points of each rule
// once, and under a name by which a second run finds it there.
func TestABackfillMakesTheSameBlocksAgain(t *testing.T) {
	s := &server{uploaded: map[string]bool{}, series: map[string]int{}}
	args := []string{"--start", "2026-01-01T01:00:00Z", "--end", "2026-01-01T05:00:00Z"}
	out, err := invoke(t, s, recordings, args...)
	if err != nil || len(s.uploaded) != 3 || s.points != 4*120+4*60 || !strings.Contains(out, "3 blocks uploaded") {
		t.Fatalf("%d blocks, %d points, %v\n%s", len(s.uploaded), s.points, err, out)
	}
	for id, n := range s.series {
		if n != 2 {
			t.Errorf("block %s has %d series", id, n)
		}
	}
	out, err = invoke(t, s, recordings, args...)
	if err != nil || len(s.uploaded) != 3 || strings.Count(out, ": there already") != 3 {
		t.Errorf("again: %d blocks, %v\n%s", len(s.uploaded), err, out)
	}
}

func TestNativeHistogramsThatTheServerTellsWholeAreRecorded(t *testing.T) {
	s := &server{uploaded: map[string]bool{}, series: map[string]int{}, exact: true}
	args := []string{"--start", "2026-01-01T00:00:00Z", "--end", "2026-01-01T02:00:00Z"}
	out, err := invoke(t, s, "groups: [{name: g, interval: 1m, rules: [{record: a, expr: histogram}]}]", args...)
	if err != nil || len(s.uploaded) != 1 || s.points != 120 || s.samples != 120 {
		t.Errorf("%d blocks of %d histograms, %d points, %v\n%s", len(s.uploaded), s.samples, s.points, err, out)
	}
}

func TestWhatABackfillMayNotTouchIsRefused(t *testing.T) {
	young := time.Now().Add(-time.Hour).Format(time.RFC3339)
	for name, c := range map[string]struct {
		rules string
		args  []string
		want  string
	}{
		"young samples": {recordings, []string{"--start", "1d", "--end", young}, "three hours"},
		"no time":       {recordings, []string{"--start", "1d", "--end", "2d"}, "not after"},
		"too long":      {recordings, []string{"--start", "3y"}, "--max-time"},
		"no recordings": {"groups: [{name: g, rules: [{alert: a, expr: up}]}]", []string{"--start", "1d"}, "no recording rules"},
		"other tenants": {"groups: [{name: g, source_tenants: [b], rules: [{record: a, expr: up}]}]", []string{"--start", "1d"}, "other tenants"},
		"histograms":    {"groups: [{name: g, rules: [{record: a, expr: histogram}]}]", []string{"--start", "5h"}, "native histograms"},
	} {
		s := &server{uploaded: map[string]bool{}, series: map[string]int{}}
		if _, err := invoke(t, s, c.rules, c.args...); err == nil || !strings.Contains(err.Error(), c.want) || len(s.uploaded) > 0 {
			t.Errorf("%s: %v, %d blocks", name, err, len(s.uploaded))
		}
	}
	s := &server{}
	if out, err := invoke(t, s, recordings, "--start", "1d", "--dry-run", "--group", "fast"); err != nil || len(s.queries) > 0 || !strings.Contains(out, "1 rules") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
}
