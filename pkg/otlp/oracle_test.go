package otlp

import (
	"context"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// collector is storage that remembers what is appended as one line of text each.
type collector struct {
	storage.AppenderV2
	lines []string
}

func (c *collector) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, _ *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) {
	c.lines = append(c.lines, line(ls, st, t, v, h, o.Exemplars, o.Metadata))
	return 1, nil
}

// line is a sample in a form that two translations can be compared by.
func line(ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, xs []exemplar.Exemplar, m metadata.Metadata) string {
	var b strings.Builder
	ls = ls.WithoutEmpty()
	fmt.Fprintf(&b, "%s st=%d t=%d", ls, st, t)
	switch {
	case h == nil:
		fmt.Fprintf(&b, " v=%x", math.Float64bits(v))
	case value.IsStaleNaN(h.Sum):
		b.WriteString(" stale histogram")
	default:
		fmt.Fprintf(&b, " h=%v hint=%d schema=%d zero=%g custom=%v sum=%x", h.ToFloat(nil).Compact(0), h.CounterResetHint, h.Schema, h.ZeroThreshold, h.CustomValues, math.Float64bits(h.Sum))
	}
	for _, x := range xs {
		fmt.Fprintf(&b, " # %s %g %d", x.Labels, x.Value, x.Ts)
	}
	if m.Type == "" {
		m.Type = model.MetricTypeUnknown
	}
	fmt.Fprintf(&b, " %s %q %q", m.Type, m.Unit, m.Help)
	return b.String()
}

// reference translates with Prometheus's library.
func reference(t *testing.T, md pmetric.Metrics, s Settings) []string {
	t.Helper()
	c := &collector{}
	_, err := prometheusremotewrite.NewPrometheusConverter(c).FromMetrics(context.Background(), md, prometheusremotewrite.Settings{
		AddMetricSuffixes: s.Suffixes, AllowUTF8: s.UTF8,
		PromoteResourceAttributes:         prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{PromoteResourceAttributes: s.Promote}),
		KeepIdentifyingResourceAttributes: s.KeepIdentifying, ConvertHistogramsToNHCB: s.CustomBuckets, AllowDeltaTemporality: s.Deltas,
		PromoteScopeMetadata: s.Scope, LabelNameUnderscoreSanitization: s.UnderscoreKeys, LabelNamePreserveMultipleUnderscores: s.PreserveUnderscores,
		LookbackDelta: 5 * time.Minute,
	})
	if err != nil {
		t.Fatalf("the reference refused: %v", err)
	}
	return c.lines
}

// ours translates with a Translator.
func ours(t *testing.T, tr *Translator, body []byte, s Settings) ([]string, Result) {
	t.Helper()
	res, err := tr.Translate(body, &s, nil, plenty{})
	if err != nil {
		t.Fatalf("translate: %v", err)
	}
	return lines(t, res.Body), res
}

// lines decodes a remote write body.
func lines(t *testing.T, body []byte) (out []string) {
	t.Helper()
	var req writev2.Request
	if err := req.Unmarshal(body); err != nil {
		t.Fatalf("the body is malformed: %v", err)
	}
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(names(ls), strings.Compare) {
			t.Fatalf("labels of %s are not sorted", ls)
		}
		var xs []exemplar.Exemplar
		for _, x := range ts.Exemplars {
			e, err := x.ToExemplar(&b, req.Symbols)
			if err != nil {
				t.Fatal(err)
			}
			xs = append(xs, e)
		}
		m, err := ts.ToMetadata(req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range ts.Samples {
			out = append(out, line(ls, s.StartTimestamp, s.Timestamp, s.Value, nil, xs, m))
		}
		for _, h := range ts.Histograms {
			out = append(out, line(ls, h.StartTimestamp, h.Timestamp, 0, h.ToIntHistogram(), xs, m))
		}
	}
	return out
}

func names(ls labels.Labels) (out []string) {
	ls.Range(func(l labels.Label) { out = append(out, l.Name) })
	return out
}

// plenty is room without bounds.
type plenty struct{}

func (plenty) Grow(buf []byte, n int) ([]byte, error) {
	return append(make([]byte, 0, 2*(cap(buf)+n)), buf...), nil
}
func (plenty) Reserve(int) error { return nil }

// marshal encodes md as a request.
func marshal(t testing.TB, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// generator makes metrics of random bytes, of the kinds that both translations take alike.
type generator struct {
	*rand.Rand
	s Settings
}

func (g *generator) pick(s ...string) string { return s[g.Intn(len(s))] }

func (g *generator) key() string {
	return g.pick("http.method", "http_method", "host.name", "_private", "a..b", "a__b", "9lives", "Code", "le", "job", "instance", "__name__", "ünïcode", "x", "y.z", "zone")
}

func (g *generator) fill(v pcommon.Value) {
	switch g.Intn(9) {
	case 0:
		v.SetInt(int64(g.Intn(1000) - 500))
	case 1:
		v.SetDouble([]float64{0, -1.5, 1e-9, 1e22, math.Inf(1), math.NaN(), 123456}[g.Intn(7)])
	case 2:
		v.SetBool(g.Intn(2) == 0)
	case 3:
		v.SetEmptyBytes().FromRaw([]byte{1, 2, byte(g.Intn(256))})
	case 4:
		m := v.SetEmptyMap()
		m.PutStr("k<>&", g.pick("v", "\"q\""))
		m.PutEmptySlice("l").AppendEmpty().SetInt(7)
	case 5: // empty
	default:
		v.SetStr(g.pick("GET", "POST", "a b", "", strings.Repeat("long", 50)))
	}
}

func (g *generator) attributes(m pcommon.Map, most int) {
	for range g.Intn(most + 1) {
		g.fill(m.PutEmpty(g.key()))
	}
}

var base = time.UnixMilli(1_700_000_000_000)

func (g *generator) times(at, start func(pcommon.Timestamp)) {
	at(pcommon.NewTimestampFromTime(base.Add(time.Duration(g.Intn(400)) * time.Millisecond)))
	if g.s.StartTimes {
		start(pcommon.NewTimestampFromTime(base.Add(-time.Duration(g.Intn(1000)) * time.Second)))
	}
}

func (g *generator) flags(set func(pmetric.DataPointFlags)) {
	if g.Intn(5) == 0 {
		set(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	}
}

// exemplars are sorted by value, which the reference takes for granted.
func (g *generator) exemplars(xs pmetric.ExemplarSlice) {
	v := 0.0
	for range g.Intn(4) {
		x := xs.AppendEmpty()
		v += float64(g.Intn(30))
		if g.Intn(2) == 0 {
			x.SetIntValue(int64(v))
		} else {
			x.SetDoubleValue(v)
		}
		x.SetTimestamp(pcommon.NewTimestampFromTime(base.Add(-time.Second)))
		if g.Intn(2) == 0 {
			x.SetTraceID([16]byte{1, byte(g.Intn(256))})
			x.SetSpanID([8]byte{9})
		}
		if g.Intn(2) == 0 {
			x.FilteredAttributes().PutStr("user.id", g.pick("7", strings.Repeat("u", 130)))
		}
	}
}

func (g *generator) temporality() pmetric.AggregationTemporality {
	if g.s.Deltas && g.Intn(3) == 0 {
		return pmetric.AggregationTemporalityDelta
	}
	return pmetric.AggregationTemporalityCumulative
}

func (g *generator) metric(m pmetric.Metric) {
	m.SetName(g.pick("http.server.duration", "requests", "up", "9metric", "a:b", "mem.usage_bytes", "queue_total", "ütf8.näme", "x_ratio"))
	m.SetUnit(g.pick("", "s", "By", "1", "ms", "By/s", "{request}", "%"))
	m.SetDescription(g.pick("", "Some help."))
	switch g.Intn(5) {
	case 0:
		g.numbers(m.SetEmptyGauge().DataPoints())
	case 1:
		s := m.SetEmptySum()
		s.SetIsMonotonic(g.Intn(2) == 0)
		s.SetAggregationTemporality(g.temporality())
		g.numbers(s.DataPoints())
	case 2:
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(g.temporality())
		for range g.Intn(3) {
			g.explicit(h.DataPoints().AppendEmpty())
		}
	case 3:
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(g.temporality())
		for range g.Intn(3) {
			g.exponential(h.DataPoints().AppendEmpty())
		}
	case 4:
		ps := m.SetEmptySummary().DataPoints()
		for range g.Intn(3) {
			p := ps.AppendEmpty()
			g.attributes(p.Attributes(), 4)
			g.times(p.SetTimestamp, p.SetStartTimestamp)
			g.flags(p.SetFlags)
			p.SetCount(uint64(g.Intn(9)))
			p.SetSum(g.Float64())
			for _, q := range []float64{0.5, 0.99}[:g.Intn(3)] {
				v := p.QuantileValues().AppendEmpty()
				v.SetQuantile(q)
				v.SetValue(g.Float64())
			}
		}
	}
}

func (g *generator) numbers(ps pmetric.NumberDataPointSlice) {
	for range g.Intn(4) {
		p := ps.AppendEmpty()
		g.attributes(p.Attributes(), 6)
		g.times(p.SetTimestamp, p.SetStartTimestamp)
		g.flags(p.SetFlags)
		if g.Intn(2) == 0 {
			p.SetIntValue(int64(g.Intn(100)) - 50)
		} else {
			p.SetDoubleValue(g.NormFloat64())
		}
		g.exemplars(p.Exemplars())
	}
}

func (g *generator) explicit(p pmetric.HistogramDataPoint) {
	g.attributes(p.Attributes(), 4)
	g.times(p.SetTimestamp, p.SetStartTimestamp)
	g.flags(p.SetFlags)
	bounds := []float64{0.005, 1, 2.5, 10, 1e6}[:g.Intn(6)]
	p.ExplicitBounds().FromRaw(bounds)
	total := uint64(0)
	for range len(bounds) + 1 {
		c := uint64(g.Intn(4))
		total += c
		p.BucketCounts().Append(c)
	}
	p.SetCount(total)
	if g.Intn(3) > 0 {
		p.SetSum(g.Float64() * 100)
	}
	g.exemplars(p.Exemplars())
}

func (g *generator) exponential(p pmetric.ExponentialHistogramDataPoint) {
	g.attributes(p.Attributes(), 4)
	g.times(p.SetTimestamp, p.SetStartTimestamp)
	g.flags(p.SetFlags)
	p.SetScale(int32(g.Intn(13) - 4)) // of finer scales the reference misplaces buckets that follow empty ones
	p.SetZeroCount(uint64(g.Intn(3)))
	total := p.ZeroCount()
	for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{p.Positive(), p.Negative()} {
		b.SetOffset(int32(g.Intn(200) - 100))
		for range g.Intn(40) {
			c := uint64(max(g.Intn(8)-5, 0))
			total += c
			b.BucketCounts().Append(c)
		}
	}
	p.SetCount(total)
	p.SetSum(g.Float64())
	g.exemplars(p.Exemplars())
}

func (g *generator) metrics() pmetric.Metrics {
	md := pmetric.NewMetrics()
	for range 1 + g.Intn(3) {
		rm := md.ResourceMetrics().AppendEmpty()
		a := rm.Resource().Attributes()
		g.attributes(a, 3)
		if g.Intn(3) > 0 {
			a.PutStr("service.name", g.pick("shop", "cart"))
		}
		if g.Intn(2) > 0 {
			a.PutStr("service.namespace", "prod")
		}
		if g.Intn(2) > 0 {
			a.PutStr("service.instance.id", g.pick("1", "2"))
		}
		for range 1 + g.Intn(2) {
			sm := rm.ScopeMetrics().AppendEmpty()
			sm.SetSchemaUrl(g.pick("", "https://schema"))
			sm.Scope().SetName(g.pick("", "lib"))
			sm.Scope().SetVersion(g.pick("", "v1"))
			g.attributes(sm.Scope().Attributes(), 2)
			for range g.Intn(4) {
				g.metric(sm.Metrics().AppendEmpty())
			}
		}
	}
	return md
}

// compare checks that both translations of random metrics are the same.
func compare(t *testing.T, tr *Translator, seed int64, switches uint16) {
	t.Helper()
	bit := func(i int) bool { return switches>>i&1 == 1 }
	s := Settings{Suffixes: bit(0), UTF8: bit(1), KeepIdentifying: bit(2), CustomBuckets: bit(3), Scope: bit(4), Deltas: bit(5),
		UnderscoreKeys: bit(6), PreserveUnderscores: bit(7), StartTimes: bit(8), Exemplars: true}
	if bit(9) {
		s.Promote = []string{"host.name", "zone", "x", "http.method", "absent"}
	}
	g := &generator{rand.New(rand.NewSource(seed)), s}
	md := g.metrics()
	body := marshal(t, md)
	want := reference(t, md, s)
	got, res := ours(t, tr, body, s)
	if res.Refused != 0 || res.Points != md.DataPointCount() {
		t.Errorf("seed %d, settings %+v: %d of %d points refused, want 0 of %d: %v", seed, s, res.Refused, res.Points, md.DataPointCount(), res.First)
	}
	want, got = settle(want), settle(got)
	if slices.Equal(got, want) {
		return
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("too much: %s", l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("lacking:  %s", l)
		}
	}
	t.Fatalf("seed %d, settings %+v: %d samples, want %d", seed, s, len(got), len(want))
}

// settle puts lines in order. Of target_info the two have different times on purpose.
func settle(in []string) (out []string) {
	for _, l := range in {
		if strings.Contains(l, "__name__=\"target_info\"") && strings.Contains(l, "Target metadata") {
			head, tail, _ := strings.Cut(l, " t=")
			_, tail, _ = strings.Cut(tail, " ")
			l = head + " " + tail
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestTheTranslationIsThatOfPrometheus(t *testing.T) {
	tr := NewTranslator()
	for seed := range int64(1000) {
		compare(t, tr, seed, uint16(seed*7919))
	}
}
