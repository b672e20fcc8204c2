package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
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
	columns(t, a.columnar(ctx, t, around.Get("match[]")))
	around.Set("format", "__name__,room,__value__,__timestamp__")
	if rows := export("team-a", "export/csv", around); strings.Count(rows, "\nstock,a,")+strings.Count(rows, "orders,c,") != 102+51 {
		t.Errorf("%s", rows)
	}
	histograms(ctx, t, n, end)
}

// sampleRow is what programs read of an exported file of Parquet.
type sampleRow struct {
	Metric    string            `parquet:"metric"`
	Labels    map[string]string `parquet:"labels"`
	Timestamp int64             `parquet:"timestamp"`
	Value     *float64          `parquet:"value"`
}

// columnar exports the last hours in windows, and returns the rows of all files.
func (a tool) columnar(ctx context.Context, t *testing.T, selector string) (rows []sampleRow) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "parquet")
	a.run(ctx, t, "bytes written to", "export", "--form=parquet", "--selector", selector, "--from", "7h", "--window", "90m", "-o", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.parquet"))
	must(t, err)
	if len(files) < 3 {
		t.Errorf("files: %q", files)
	}
	for _, name := range files {
		got, err := parquet.ReadFile[sampleRow](name)
		must(t, err)
		rows = append(rows, got...)
	}
	return rows
}

// columns are the 50 values and the end of each of four pieces of series, once each.
func columns(t *testing.T, rows []sampleRow) {
	t.Helper()
	seen, ends, rooms := map[string]bool{}, 0, map[string]int{}
	for _, r := range rows {
		at := fmt.Sprint(r.Metric, r.Labels, r.Timestamp)
		if seen[at] || len(r.Labels) != 1 {
			t.Errorf("%s is there twice, or with other labels", at)
		}
		seen[at] = true
		rooms[r.Metric+" "+r.Labels["room"]]++
		if r.Value == nil {
			ends++
		}
	}
	if len(rows) != 4*51 || ends != 4 || rooms["stock a"] != 102 || rooms["stock ü \"b\"\n"] != 51 || rooms["orders c"] != 51 {
		t.Errorf("%d rows, %d ends, %v", len(rows), ends, rooms)
	}
}

// histograms exports native histograms of all kinds, imports them for others, and expects the same exports
// of those.
func histograms(ctx context.Context, t *testing.T, n *harness.Node, at time.Time) {
	t.Helper()
	form := url.Values{"match[]": {`{__name__=~"native.*"}`}, "start": {seconds(at.Add(-time.Hour).UnixMilli())}, "end": {seconds(at.UnixMilli())}}
	get := func(tenant, path string) reply {
		return call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, "X-Scope-OrgID", tenant)
	}
	kinds := map[string]func(i int, ms int64) prompb.Histogram{
		"native_int": func(i int, ms int64) prompb.Histogram {
			return prompb.FromIntHistogram(ms, tsdbutil.GenerateTestHistogram(int64(i)))
		},
		"native_float": func(i int, ms int64) prompb.Histogram {
			return prompb.FromFloatHistogram(ms, tsdbutil.GenerateTestFloatHistogram(int64(i)))
		},
		"native_gauge": func(i int, ms int64) prompb.Histogram {
			return prompb.FromIntHistogram(ms, tsdbutil.GenerateTestGaugeHistogram(int64(9-i)))
		},
		"native_custom": func(i int, ms int64) prompb.Histogram {
			return prompb.FromIntHistogram(ms, tsdbutil.GenerateTestCustomBucketsHistogram(int64(i)))
		},
		"native_custom_float": func(i int, ms int64) prompb.Histogram {
			return prompb.FromFloatHistogram(ms, tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(i)))
		},
	}
	for name, kind := range kinds {
		s := prompb.TimeSeries{Labels: pairs("__name__", name)}
		for i := range 9 {
			s.Histograms = append(s.Histograms, kind(i, at.Add(time.Duration(i-10)*time.Minute).UnixMilli()))
		}
		stored(t, pushV1(ctx, t, n.URL(""), "team-h", s))
	}
	if r := get("team-h", "export/csv"); r.status != 400 {
		t.Errorf("as CSV without a format: %s", r)
	}
	form.Set("histograms", "fail")
	if r := get("team-h", "export"); r.status != 422 || !strings.Contains(r.body, "export/native") {
		t.Errorf("as lines without histograms: %s", r)
	}
	form.Del("histograms")
	first, native := get("team-h", "export"), get("team-h", "export/native")
	if first.status != 200 || strings.Count(first.body, "\n") != len(kinds) || strings.Count(first.body, `"schema"`) != 9*len(kinds) || strings.Count(first.body, "GAUGE") != 9 || strings.Count(first.body, "custom_values") != 18 {
		t.Errorf("as lines: %s", first)
	}
	for tenant, form := range map[string]struct{ path, body string }{"team-i": {"import", first.body}, "team-j": {"import/native", native.body}} {
		if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/"+form.path), []byte(form.body), "X-Scope-OrgID", tenant); r.status/100 != 2 {
			t.Errorf("%s answered %s", form.path, r)
		}
		if again := get(tenant, "export"); again.body != first.body {
			t.Errorf("by %s and exported again:\n%s\nwas\n%s", form.path, again.body, first.body)
		}
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/import/native"), []byte(native.body[:len(native.body)-1]), "X-Scope-OrgID", "team-k"); r.status != 400 || get("team-k", "export").body != "" {
		t.Errorf("half a frame: %s", r)
	}
}
