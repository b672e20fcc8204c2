package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAnswersAcrossTheSeamEqualPrometheus has the older half of some series in blocks alone and the newer
// half in memory alone, and compares the answers around the seam with those of Prometheus's own engine and
// storage, at every step.
func TestAnswersAcrossTheSeamEqualPrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{"-ingester.out-of-order-time-window=48h", "-distributor.ingestion-rate-limit=0"}})
	n := c.Nodes()[0]
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, tsdb.DefaultOptions(), nil)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	seam := time.Now().Add(-3 * time.Hour).Truncate(time.Minute)

	seamFill(ctx, t, n, db, seam.Add(-2*time.Hour), seam)
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	must(t, n.Process.Stop())
	must(t, errors.Join(os.RemoveAll(n.DataDir), os.RemoveAll(filepath.Join(dir, "blocks-cache"))))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	seamFill(ctx, t, n, db, seam, seam.Add(2*time.Hour))

	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	defer func() { must(t, engine.Close()) }()
	from, to, step := seam.Add(-20*time.Minute), seam.Add(20*time.Minute), 7*time.Second
	for _, query := range []string{"seam", "rate(seam[5m])", "increase(seam[13m])", "sum by (odd) (rate(seam[2m]))", "max_over_time(seam[17m])", "count_over_time(seam[1h])",
		"seam offset 9m", "avg_over_time(seam[3m:20s])", "changes(seam[10m])", "topk(2, seam)", "deriv(seam[4m])", "absent_over_time(seam{i=\"9\"}[1m])"} {
		q, err := engine.NewRangeQuery(ctx, db, nil, query, from, to, step)
		must(t, err)
		want := q.Exec(ctx)
		must(t, want.Err)
		matrix, err := want.Matrix()
		must(t, err)
		got, err := ask(ctx, n.URL("/prometheus"), "team-a", "query_range", url.Values{"query": {query}, "start": {seconds(from.UnixMilli())}, "end": {seconds(to.UnixMilli())}, "step": {"7"}})
		must(t, err)
		if problem := seamDiffers(got.Data.Result, matrix); problem != "" {
			t.Errorf("%s: %s", query, problem)
		}
		q.Close()
	}
}

// seamFill pushes counters with resets and gaps, and keeps them in db as well.
func seamFill(ctx context.Context, t *testing.T, n *harness.Node, db *tsdb.DB, from, to time.Time) {
	t.Helper()
	app := db.Appender(ctx)
	var series []prompb.TimeSeries
	for i := range 6 {
		kv := []string{"__name__", "seam", "i", strconv.Itoa(i), "odd", strconv.Itoa(i % 2)}
		ts := prompb.TimeSeries{Labels: pairs(kv...)}
		for at := from; at.Before(to); at = at.Add(15 * time.Second) {
			k := at.Unix() / 15
			if (k+int64(i))%23 == 0 || i == 4 && k%40 < 25 {
				continue
			}
			v := float64((k * int64(i+1)) % 977)
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: v})
			_, err := app.Append(0, labels.FromStrings(kv...), at.UnixMilli(), v)
			must(t, err)
		}
		series = append(series, ts)
	}
	must(t, app.Commit())
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
}

// seamDiffers says where an answer is not the matrix; empty: nowhere.
func seamDiffers(got []oneSeries, want promql.Matrix) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d series, want %d", len(got), len(want))
	}
	byLabels := map[string]oneSeries{}
	for _, s := range got {
		byLabels[labels.FromMap(s.Metric).String()] = s
	}
	for _, w := range want {
		g, ok := byLabels[w.Metric.String()]
		if !ok || len(g.Values) != len(w.Floats) {
			return fmt.Sprintf("series %s has %d points, want %d", w.Metric, len(g.Values), len(w.Floats))
		}
		for i, p := range w.Floats {
			at, _ := g.Values[i][0].(float64)
			text, _ := g.Values[i][1].(string)
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || math.Round(at*1000) != float64(p.T) || math.Abs(v-p.F) > 1e-9*math.Max(1, math.Abs(p.F)) {
				return fmt.Sprintf("series %s is %s at %v, want %v at %d", w.Metric, text, at, p.F, p.T)
			}
		}
	}
	return ""
}
