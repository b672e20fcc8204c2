package otlp

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

var at = pcommon.NewTimestampFromTime(base)

// one returns metrics with one resource and the metrics that fill makes.
func one(fill func(pmetric.MetricSlice)) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "shop")
	fill(rm.ScopeMetrics().AppendEmpty().Metrics())
	return md
}

func gauge(ms pmetric.MetricSlice, name string, v float64, attributes ...string) {
	m := ms.AppendEmpty()
	m.SetName(name)
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetDoubleValue(v)
	for i := 0; i < len(attributes); i += 2 {
		p.Attributes().PutStr(attributes[i], attributes[i+1])
	}
}

// TestABadPointCostsOnlyItself: of each metric, the good points are stored, and the first reason is told.
func TestABadPointCostsOnlyItself(t *testing.T) {
	md := one(func(ms pmetric.MetricSlice) {
		gauge(ms, "good", 1)
		gauge(ms, "nameless_label", 2, "...", "x")
		gauge(ms, "...", 3)
		delta := ms.AppendEmpty()
		delta.SetName("delta")
		s := delta.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		s.DataPoints().AppendEmpty().SetIntValue(1)
		s.DataPoints().AppendEmpty().SetIntValue(1)
		h := ms.AppendEmpty()
		h.SetName("h")
		e := h.SetEmptyExponentialHistogram()
		e.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		coarse := e.DataPoints().AppendEmpty()
		coarse.SetScale(-5)
		huge := e.DataPoints().AppendEmpty()
		huge.Positive().SetOffset(math.MaxInt32)
		huge.Positive().BucketCounts().FromRaw([]uint64{1, 1})
		huge.SetCount(2)
		e.DataPoints().AppendEmpty().SetTimestamp(at)
		empty := ms.AppendEmpty()
		empty.SetName("valueless")
		empty.SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(at)
		gauge(ms, "good_too", 4)
	})
	got, res := ours(t, NewTranslator(), marshal(t, md), Settings{})
	if res.Points != 10 || res.Refused != 7 || res.Samples != 3 || len(got) != 3 {
		t.Errorf("%d points, %d refused, %d samples, want 10, 7, 3: %q", res.Points, res.Refused, res.Samples, got)
	}
	if errs.KindOf(res.First) != errs.Invalid || !strings.Contains(res.First.Error(), `"nameless_label"`) {
		t.Errorf("first refusal: %v", res.First)
	}
	for _, name := range []string{"good", "h", "good_too"} {
		if !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, `__name__="`+name+`"`) }) {
			t.Errorf("%s is lacking in %q", name, got)
		}
	}
}

// TestFinerBucketsAreMerged: every value stays in a bucket that holds it.
func TestFinerBucketsAreMerged(t *testing.T) {
	b := buckets{offset: -3, counts: []uint64{0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}
	for merge := range int32(6) {
		want := map[int64]uint64{}
		for i, c := range b.counts {
			if c > 0 {
				want[(int64(b.offset)+int64(i))>>merge+1] += c
			}
		}
		spans, deltas, ok := b.sparseExponential(nil, nil, merge)
		got, number, count, d := map[int64]uint64{}, int64(0), int64(0), 0
		for _, s := range spans {
			number += int64(s.Offset)
			for range s.Length {
				if count += deltas[d]; count > 0 {
					got[number] = uint64(count)
				}
				d++
				number++
			}
		}
		if !ok || len(got) != len(want) || d != len(deltas) {
			t.Errorf("merging 2^%d: %v, want %v", merge, got, want)
		}
		for n, c := range want {
			if got[n] != c {
				t.Errorf("merging 2^%d: bucket %d has %d, want %d", merge, n, got[n], c)
			}
		}
	}
}

func TestTheZeroBucketIsAsWideAsTheSenderSays(t *testing.T) {
	md := one(func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("h")
		e := m.SetEmptyExponentialHistogram()
		e.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := e.DataPoints().AppendEmpty()
		p.SetZeroThreshold(0.25)
		p.SetZeroCount(3)
		p.SetCount(3)
	})
	if got, _ := ours(t, NewTranslator(), marshal(t, md), Settings{}); len(got) != 1 || !strings.Contains(got[0], "zero=0.25") {
		t.Errorf("got %q", got)
	}
}

// TestTargetInfoIsBounded: points that lie far apart do not make samples without end.
func TestTargetInfoIsBounded(t *testing.T) {
	md := one(func(ms pmetric.MetricSlice) {
		for _, ns := range []pcommon.Timestamp{0, 1, at} {
			p := ms.AppendEmpty()
			p.SetName("g")
			d := p.SetEmptyGauge().DataPoints().AppendEmpty()
			d.SetTimestamp(ns)
			d.SetIntValue(1)
		}
	})
	md.ResourceMetrics().At(0).Resource().Attributes().PutStr("region", "eu")
	got, res := ours(t, NewTranslator(), marshal(t, md), Settings{})
	if res.Samples > 3+maxTargetSamples+1 || len(got) != res.Samples {
		t.Errorf("%d samples", res.Samples)
	}
	last := `target_info", job="shop", region="eu"} st=0 t=1700000000000`
	if !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, last) }) {
		t.Errorf("no target_info at the end: %q", got)
	}
}

// TestEqualResourcesHaveOneTargetInfo: some senders repeat the resource for every scope.
func TestEqualResourcesHaveOneTargetInfo(t *testing.T) {
	md := one(func(ms pmetric.MetricSlice) { gauge(ms, "a", 1) })
	md.ResourceMetrics().At(0).Resource().Attributes().PutStr("region", "eu")
	md.ResourceMetrics().At(0).CopyTo(md.ResourceMetrics().AppendEmpty())
	_, res := ours(t, NewTranslator(), marshal(t, md), Settings{})
	if res.Samples != 3 {
		t.Errorf("%d samples, want 2 and one of target_info", res.Samples)
	}
}

// poor is room that is used up after some bytes.
type poor struct{ left int }

var errPoor = errors.New("no more")

func (p *poor) take(n int) error {
	if p.left -= n; p.left < 0 {
		return errPoor
	}
	return nil
}

func (p *poor) Grow(buf []byte, n int) ([]byte, error) {
	if err := p.take(n); err != nil {
		return buf, err
	}
	return plenty{}.Grow(buf, n)
}

func (p *poor) Reserve(n int) error { return p.take(n) }

func TestWithoutMemoryTheRequestFails(t *testing.T) {
	body := marshal(t, batch("histogram", 100))
	tr := NewTranslator()
	for left := range 40 {
		_, err := tr.Translate(body, &Settings{}, nil, &poor{left << 10})
		if left < 10 && !errors.Is(err, errPoor) {
			t.Errorf("with %d KiB: %v", left, err)
		}
	}
	if _, res := ours(t, tr, body, Settings{}); res.Samples != 1701 { // what failed left nothing behind
		t.Errorf("%d samples, want 1701", res.Samples)
	}
}

// TestNestedValuesAreBounded: a small body must not use up the stack.
func TestNestedValuesAreBounded(t *testing.T) {
	deep := func(levels int) []byte {
		v := []byte{anyString<<3 | wireBytes, 1, 'x'}
		for range levels {
			v = appendMessage(nil, anyArray, appendMessage(nil, 1, v))
		}
		return v
	}
	tr := NewTranslator()
	tr.enc.Begin(nil, plenty{})
	if s, err := tr.text(deep(3)); err != nil || s != `[[["x"]]]` {
		t.Errorf("3 levels: %q, %v", s, err)
	}
	if _, err := tr.text(deep(10_000)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("10,000 levels: %v", err)
	}
	json := strings.Repeat(`{"arrayValue":{"values":[`, 100_000)
	if _, err := FromJSON([]byte(json)); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("JSON: %v", err)
	}
}

func TestJSONIsTheSameRequest(t *testing.T) {
	md := batch("histogram", 20)
	text, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromJSON(text)
	if err != nil || !bytes.Equal(got, marshal(t, md)) {
		t.Errorf("JSON differs: %v", err)
	}
	if _, err := FromJSON([]byte(`{"resourceMetrics":[{`)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("cut JSON: %v", err)
	}
}

func TestTheStrategyChoosesNames(t *testing.T) {
	for _, c := range []struct {
		strategy, scheme string
		suffixes         bool
		want             string
	}{
		{"", "legacy", false, "http_requests"},
		{"", "legacy", true, "http_requests_total"},
		{"", "utf8", false, "http.requests"},
		{"", "utf8", true, "http.requests_total"},
		{"UnderscoreEscapingWithSuffixes", "utf8", false, "http_requests_total"},
		{"UnderscoreEscapingWithoutSuffixes", "utf8", true, "http_requests"},
		{"NoUTF8EscapingWithSuffixes", "legacy", false, "http.requests_total"},
		{"NoTranslation", "legacy", true, "http.requests"},
	} {
		v := limits.OTelTranslationStrategy.With(limits.View{}, c.strategy)
		v = limits.NameValidationScheme.With(v, c.scheme)
		v = limits.OTelMetricSuffixes.With(v, c.suffixes)
		md := one(func(ms pmetric.MetricSlice) {
			m := ms.AppendEmpty()
			m.SetName("http.requests")
			s := m.SetEmptySum()
			s.SetIsMonotonic(true)
			s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			s.DataPoints().AppendEmpty().SetIntValue(1)
		})
		if got, _ := ours(t, NewTranslator(), marshal(t, md), SettingsOf(v)); len(got) != 1 || !strings.Contains(got[0], `"`+c.want+`"`) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestATranslatorKeepsNothingOfARequest(t *testing.T) {
	tr := NewTranslator()
	body := marshal(t, batch("sum", 200))
	first, _ := ours(t, tr, body, Settings{Scope: true})
	clear(body) // what was a view of it would change now
	again, _ := ours(t, tr, marshal(t, batch("sum", 200)), Settings{Scope: true})
	if !slices.Equal(first, again) {
		t.Error("the second translation differs from the first")
	}
}

func FuzzTranslate(f *testing.F) {
	for i, kind := range []string{"sum", "histogram", "exponential"} {
		f.Add(marshal(f, batch(kind, 3)), uint16(1<<i))
	}
	tr := NewTranslator()
	keys := remotewrite.NewKeys()
	f.Fuzz(func(t *testing.T, body []byte, switches uint16) {
		bit := func(i int) bool { return switches>>i&1 == 1 }
		s := Settings{Suffixes: bit(0), UTF8: bit(1), KeepIdentifying: bit(2), CustomBuckets: bit(3), Scope: bit(4), Deltas: bit(5),
			UnderscoreKeys: bit(6), PreserveUnderscores: bit(7), StartTimes: bit(8), Exemplars: bit(9), Promote: []string{"host.name"}}
		s.Streams = NewStreams(StreamsOptions{MaxBytes: 1 << 20, Idle: time.Minute, Now: time.Now})
		res, err := tr.Translate(body, &s, nil, &poor{1 << 24})
		if err != nil {
			return
		}
		if res.Refused > res.Points+1 || (res.Refused > 0) != (res.First != nil) {
			t.Errorf("%d of %d points refused, first: %v", res.Refused, res.Points, res.First)
		}
		var b remotewrite.Batch
		if err := b.Scan(keys, &remotewrite.Request{Version: remotewrite.V2, Body: res.Body}); err != nil {
			t.Fatalf("the translation is malformed: %v", err)
		}
		if n := len(b.Times) + b.HistogramCount(); n != res.Samples {
			t.Errorf("%d samples, want %d", n, res.Samples)
		}
		for j := range b.HistogramCount() {
			if _, err := b.Histogram(j); err != nil {
				t.Fatalf("histogram %d is malformed: %v", j, err)
			}
		}
		for j := range b.ExemplarCount() {
			if _, _, _, err := b.Exemplar(j, nil, 100); err != nil {
				t.Fatalf("exemplar %d is malformed: %v", j, err)
			}
		}
	})
}

func FuzzTranslationIsThatOfPrometheus(f *testing.F) {
	f.Add(int64(1), uint16(0))
	f.Add(int64(77), uint16(0x3ff))
	tr := NewTranslator()
	f.Fuzz(func(t *testing.T, seed int64, switches uint16) { compare(t, tr, seed, switches) })
}

func FuzzFromJSON(f *testing.F) {
	text, err := pmetricotlp.NewExportRequestFromMetrics(batch("histogram", 2)).MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"kvlistValue":{}}}]}}]}`))
	tr := NewTranslator()
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := FromJSON(body)
		if err != nil {
			return
		}
		if _, err := tr.Translate(out, &Settings{}, nil, plenty{}); err != nil && errs.KindOf(err) != errs.Invalid {
			t.Errorf("translate: %v", err)
		}
	})
}
