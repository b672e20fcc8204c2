package integration

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/histogram"
	marker "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// federateData are series whose newest samples are of all kinds, or too old, or the end of the series.
func federateData(now time.Time) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	at := func(back time.Duration) int64 { return now.Add(-back).UnixMilli() }
	sorted := func(kv []string) []prompb.Label {
		ls := pairs(kv...)
		slices.SortFunc(ls, func(a, b prompb.Label) int { return strings.Compare(a.Name, b.Name) })
		return ls
	}
	add := func(values []float64, kv ...string) {
		ts := prompb.TimeSeries{Labels: sorted(kv)}
		for i, v := range values {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at(time.Duration(len(values)-i) * 30 * time.Second), Value: v})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	stale := math.Float64frombits(marker.StaleNaN)
	for _, a := range []string{"x", "y", "z"} {
		add([]float64{1, 2, 3}, "__name__", "g", "a", a, "instance", "i"+a)
		add([]float64{1}, "__name__", "k_total", "a", a)
		add([]float64{math.Inf(1), math.NaN()}, "__name__", "odd", "a", a)
	}
	add([]float64{math.Inf(-1)}, "__name__", "odd", "a", "\\ \"quoted\"\nü")
	add([]float64{1, stale}, "__name__", "ended", "a", "x")
	add([]float64{stale, 1}, "__name__", "back_again", "a", "x")
	add([]float64{1e-300}, "__name__", "näme with dots.and/more", "la bel", "ü")
	add([]float64{7}, "__name__", "with:colons", "job", "j", "__x", "y")
	req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: pairs("__name__", "old"), Samples: []prompb.Sample{{Timestamp: at(20 * time.Minute), Value: 1}}})
	hist := func(h prompb.Histogram, kv ...string) {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: sorted(kv), Histograms: []prompb.Histogram{h}})
	}
	soon := at(20 * time.Second)
	hist(prompb.FromIntHistogram(soon, tsdbutil.GenerateTestHistogram(3)), "__name__", "nh", "a", "x")
	hist(prompb.FromFloatHistogram(soon, tsdbutil.GenerateTestFloatHistogram(4)), "__name__", "nh", "a", "y")
	hist(prompb.FromIntHistogram(soon, tsdbutil.GenerateTestGaugeHistogram(5)), "__name__", "nhgauge", "a", "x")
	hist(prompb.FromIntHistogram(soon, tsdbutil.GenerateTestCustomBucketsHistogram(6)), "__name__", "nhcb", "a", "x")
	hist(prompb.FromIntHistogram(soon, &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 3, Sum: 4, CustomValues: []float64{1, 2, 3}, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{2, -1}}), "__name__", "nhcb", "a", "gaps")
	hist(prompb.FromIntHistogram(soon, tsdbutil.GenerateTestHistogram(7)), "__name__", "g", "a", "nh")
	return req
}

// TestFederateIsThatOfAPrometheusBesideUs compares what is shown to others to scrape. Intended to differ: selectors that
// select everything are refused, as for series. There is one series of float histograms only: Prometheus shows of several the
// last in the place of each.
func TestFederateIsThatOfAPrometheusBesideUs(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-validation.name-validation-scheme=utf8", "-ingester.out-of-order-time-window=1h")
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: t.TempDir(), Receiver: true, Late: true})
	harness.Need(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	raw, err := federateData(time.Now()).Marshal()
	must(t, err)
	keep(ctx, t, n.URL(""), "full", raw)
	stored(t, call(ctx, t, http.MethodPost, "http://"+p.Address+"/api/v1/write", snappy.Encode(nil, raw), "Content-Type", typeV1, "Content-Encoding", "snappy"))
	delimited := "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	shown := 0
	for _, matches := range [][]string{{"g"}, {"k_total"}, {"g", "k_total"}, {"g", `{a="x"}`}, {`{a=~".+"}`}, {`{__name__=~".+"}`}, {"odd"}, {"ended"}, {"back_again"}, {"old"}, {"nothing"}, {"nh"}, {"nhgauge", "nhcb"}, {`{"näme with dots.and/more"}`}, {`{"la bel"="ü"}`}, {"with:colons"},
		nil, {""}, {"g{"}, {"g", ")"}, {"rate(g[5m])"}, {"g[5m]"}} {
		for _, accept := range []string{"", "text/plain", "text/plain;version=0.0.4", "text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain;version=1.0.0;escaping=values;q=0.9", "application/openmetrics-text;version=1.0.0", delimited, delimited + ";escaping=underscores",
			"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", "*/*", "nonsense"} {
			target := "?" + url.Values{"match[]": matches}.Encode()
			e := exchange{method: "GET", target: target, header: []string{"Accept", accept}}
			want, err := e.send(ctx, "http://"+p.Address+"/federate")
			must(t, err)
			got, err := e.send(ctx, n.URL("/prometheus/federate"))
			must(t, err)
			if got.status != want.status || got.header.Get("Content-Type") != want.header.Get("Content-Type") {
				t.Errorf("%q as %q: answered %s (%s), want %s (%s)", matches, accept, got, got.header.Get("Content-Type"), want, want.header.Get("Content-Type"))
				continue
			}
			if want.status != http.StatusOK {
				continue
			}
			g, w := exposition(t, got), exposition(t, want)
			if shown += len(w); !slices.Equal(g, w) {
				t.Errorf("%q as %q:\n%s\nwant\n%s", matches, accept, strings.Join(g, "\n"), strings.Join(w, "\n"))
			}
		}
	}
	if t.Logf("%d lines and families were compared", shown); shown < 1000 {
		t.Error("too few lines")
	}
}

// exposition is what an answer shows: lines, or metrics, sorted, as series of one name have no order.
func exposition(t *testing.T, r reply) []string {
	t.Helper()
	var out []string
	if !strings.Contains(r.header.Get("Content-Type"), "encoding=delimited") {
		for line := range strings.SplitSeq(r.body, "\n") {
			out = append(out, strings.Join(strings.Fields(line), " ")) // protobuf as text has as many blanks as it likes
		}
		slices.Sort(out)
		return out
	}
	dec := expfmt.NewDecoder(bytes.NewReader([]byte(r.body)), expfmt.NewFormat(expfmt.TypeProtoDelim))
	for {
		var f dto.MetricFamily
		err := dec.Decode(&f)
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return slices.Compact(out) // families of one name may alternate
		}
		must(t, err)
		for _, m := range f.Metric {
			out = append(out, f.GetName()+" "+f.GetType().String()+" "+strings.Join(strings.Fields(m.String()), " "))
		}
	}
}
