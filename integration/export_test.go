package integration

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	staleness "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestWhatIsExportedIsTheSameWhenItIsImported exports the samples of one tenant, in memory and in a block,
// imports them for another, and expects the same export of that one.
func TestWhatIsExportedIsTheSameWhenItIsImported(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 3*time.Minute)
	n := oneProcess(ctx, t, harness.Options{Files: true, Flags: []string{"-ingester.out-of-order-time-window=12h"}}).Nodes()[0]
	end := time.Now().Truncate(time.Minute)
	odd := []float64{0, math.Copysign(0, -1), 0.1, -1.5e-300, math.MaxFloat64, 5e-324, math.Inf(1), math.Inf(-1), math.NaN(), 1 << 53}
	series := func(from time.Time, kv ...string) prompb.TimeSeries {
		s := prompb.TimeSeries{Labels: pairs(kv...)}
		for i := range 50 {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: from.Add(time.Duration(i) * time.Minute).UnixMilli(), Value: odd[i%len(odd)] * float64(1+i/len(odd))})
		}
		s.Samples = append(s.Samples, prompb.Sample{Timestamp: from.Add(51 * time.Minute).UnixMilli(), Value: math.Float64frombits(staleness.StaleNaN)})
		return s
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series(end.Add(-6*time.Hour), "__name__", "stock", "room", "a"), series(end.Add(-6*time.Hour), "__name__", "stock", "room", "ü \"b\"\n")))
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series(end.Add(-2*time.Hour), "__name__", "stock", "room", "a"), series(end.Add(-2*time.Hour), "__name__", "orders", "room", "c")))
	around := url.Values{"match[]": {`{__name__=~"stock|orders"}`}, "start": {seconds(end.Add(-7 * time.Hour).UnixMilli())}, "end": {seconds(end.UnixMilli())}}
	export := func(tenant, path string, form url.Values) string {
		t.Helper()
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, "X-Scope-OrgID", tenant)
		if r.status != 200 {
			t.Fatalf("%s of %s: %s", path, tenant, r)
		}
		return r.body
	}
	first := export("team-a", "export", around)
	if strings.Count(first, "\n") != 3 || strings.Count(first, "StaleNaN") != 4 {
		t.Fatalf("%s", first)
	}
	if got := export("team-b", "export", around); got != "" {
		t.Errorf("another tenant has %s", got)
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/export?")+around.Encode(), nil, "X-Scope-OrgID", "team-a|team-b"); r.status != 422 {
		t.Errorf("of two tenants: %s", r)
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/import"), []byte(first), "X-Scope-OrgID", "team-b"); r.status/100 != 2 {
		t.Fatalf("import answered %s", r)
	}
	if again := export("team-b", "export", around); again != first {
		t.Errorf("imported and exported again:\n%s\nwas\n%s", again, first)
	}
	file := filepath.Join(t.TempDir(), "out")
	a := newTool(n, "team-a")
	a.run(ctx, t, "bytes written to", "export", "--selector", around.Get("match[]"), "--from", "7h", "--window", "90m", "-o", file)
	lines, err := os.ReadFile(file)
	must(t, err)
	if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/import"), lines, "X-Scope-OrgID", "team-c"); r.status/100 != 2 {
		t.Fatalf("import answered %s", r)
	}
	if again := export("team-c", "export", around); again != first {
		t.Errorf("what the tool wrote, imported and exported again:\n%s\nwas\n%s", again, first)
	}
	around.Set("format", "__name__,room,__value__,__timestamp__")
	if rows := export("team-a", "export/csv", around); strings.Count(rows, "\nstock,a,")+strings.Count(rows, "orders,c,") != 102+51 {
		t.Errorf("%s", rows)
	}
	histograms(ctx, t, n, end)
}

// histograms exports native histograms.
func histograms(ctx context.Context, t *testing.T, n *harness.Node, at time.Time) {
	t.Helper()
	stored(t, pushV1(ctx, t, n.URL(""), "team-h", prompb.TimeSeries{Labels: pairs("__name__", "native"),
		Histograms: []prompb.Histogram{prompb.FromIntHistogram(at.UnixMilli(), tsdbutil.GenerateTestHistogram(3))}}))
	form := url.Values{"match[]": {"native"}}
	get := func(path string) reply {
		return call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, "X-Scope-OrgID", "team-h")
	}
	if r := get("export"); r.status != 422 || !strings.Contains(r.body, "export/native") {
		t.Errorf("as lines: %s", r)
	}
	if r := get("export/native"); r.status != 200 || !strings.Contains(r.body, "native") {
		t.Errorf("as chunks: %d %q", r.status, r.body)
	}
}
