package remotewrite

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// field encodes a length-delimited field.
func field(n int, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return slices.Concat([]byte{byte(n<<3 | wireBytes)}, binary.AppendUvarint(nil, uint64(len(body))), body)
}

func label(name, value string) []byte {
	return field(1, field(1, []byte(name)), field(2, []byte(value)))
}

func scanned(t testing.TB, k *Keys, v Version, body []byte) *Batch {
	t.Helper()
	b := new(Batch)
	if err := b.Scan(k, &Request{Version: v, Body: body}); err != nil {
		t.Fatalf("scan %x: %v", body, err)
	}
	return b
}

func labelsOf(t testing.TB, b *Batch, i int) labels.Labels {
	t.Helper()
	ls, _, err := b.Labels(i, nil, 1<<20)
	if err != nil {
		t.Fatalf("labels of series %d: %v", i, err)
	}
	slices.SortStableFunc(ls, func(a, b Label) int { return bytes.Compare(a.Name, b.Name) })
	return Build(new(labeltext.Builder), ls)
}

func fullHistograms() (int, float prompb.Histogram) {
	int64s := &histogram.Histogram{Count: 12, ZeroCount: 2, ZeroThreshold: 0.001, Sum: 18.4, Schema: 1, CounterResetHint: histogram.GaugeType,
		PositiveSpans: []histogram.Span{{Offset: -3, Length: 2}, {Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1, -1, 0},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}}, NegativeBuckets: []int64{1, 1, -1, 0}}
	floats := &histogram.FloatHistogram{Count: 3.5, Sum: 1, Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1, 2, 5},
		PositiveSpans: []histogram.Span{{Length: 3}}, PositiveBuckets: []float64{1, 2, 0.5}}
	return prompb.FromIntHistogram(1000, int64s), prompb.FromFloatHistogram(2000, floats)
}

// bodyV1 has every part an RW 1.0 request can have.
func bodyV1() []byte {
	ih, fh := fullHistograms()
	return remotewritetest.MustMarshal(&prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: "a"}},
				Samples:   []prompb.Sample{{Value: 1, Timestamp: 5}, {Value: 0, Timestamp: 0}, {Value: math.NaN(), Timestamp: -7}},
				Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "x"}}, Value: 2, Timestamp: 6}}},
			{Labels: []prompb.Label{{Name: "__name__", Value: "h"}}, Histograms: []prompb.Histogram{ih, fh}},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "up", Help: "help", Unit: "s"}},
	})
}

// bodyV2 has every part an RW 2.0 request can have.
func bodyV2() []byte {
	ih, fh := fullHistograms()
	s := writev2.NewSymbolTable()
	refs := func(ls ...string) []uint32 { return s.SymbolizeLabels(labels.FromStrings(ls...), nil) }
	r := &writev2.Request{Timeseries: []writev2.TimeSeries{
		{LabelsRefs: refs("__name__", "up", "job", "a"),
			Samples:   []writev2.Sample{{Value: 1, Timestamp: 5}, {Value: 3, Timestamp: 9, StartTimestamp: 2}},
			Exemplars: []writev2.Exemplar{{LabelsRefs: refs("trace_id", "x"), Value: 2, Timestamp: 6}},
			Metadata:  writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: s.Symbolize("help"), UnitRef: s.Symbolize("s")}},
		{LabelsRefs: refs("__name__", "h"), Histograms: []writev2.Histogram{
			writev2.FromIntHistogram(11, 1000, ih.ToIntHistogram()), writev2.FromFloatHistogram(0, 2000, fh.ToFloatHistogram())}},
	}}
	r.Symbols = s.Symbols()
	return remotewritetest.MustMarshal(r)
}

func TestAllPartsAreReported(t *testing.T) {
	for v, body := range map[Version][]byte{V1: bodyV1(), V2: bodyV2()} {
		b := scanned(t, NewKeys(), v, body)
		if b.Len() != 2 || b.HistogramCount() != 2 || b.ExemplarCount() != 1 {
			t.Fatalf("v%d: %d series, %d histograms, %d exemplars; want 2, 2, 1", v, b.Len(), b.HistogramCount(), b.ExemplarCount())
		}
		for j := range 2 {
			h, err := b.Histogram(j)
			if err != nil || h.Validate() != nil {
				t.Errorf("v%d: histogram %d: %v, %v", v, j, err, h.Validate())
			}
		}
	}
	b := scanned(t, NewKeys(), V2, bodyV2())
	if m := b.SeriesMetadata(0); m.Type != "gauge" || string(m.Help) != "help" || string(m.Unit) != "s" {
		t.Errorf("series metadata = %+v", m)
	}
	if b.SeriesMetadataHash(0) == 0 || b.SeriesMetadataHash(1) != 0 {
		t.Error("only the first series says something about its family")
	}
	if !slices.Equal(b.StartTimes, []int64{0, 2}) {
		t.Errorf("start times = %v, want [0 2]", b.StartTimes)
	}
}

func TestFieldOrderDoesNotMatter(t *testing.T) {
	sample := field(2, []byte{0x10, 7}) // the value 0 is left out
	want := labels.FromStrings("__name__", "up", "job", "a")
	for name, series := range map[string][]byte{
		"labels first":    slices.Concat(label("__name__", "up"), label("job", "a"), sample),
		"labels last":     slices.Concat(sample, label("__name__", "up"), label("job", "a")),
		"labels around":   slices.Concat(label("__name__", "up"), sample, label("job", "a")),
		"unknown between": slices.Concat(label("__name__", "up"), []byte{0x78, 1}, label("job", "a"), sample),
		"long varint":     slices.Concat([]byte{0x0a, 0x8e, 0x80, 0x00}, field(1, []byte("__name__")), field(2, []byte("up")), label("job", "a"), sample),
		"unsorted":        slices.Concat(label("job", "a"), label("__name__", "up"), sample),
		"empty value":     slices.Concat(label("__name__", "up"), label("gone", ""), label("job", "a"), sample),
		"value first":     slices.Concat(field(1, field(2, []byte("up")), field(1, []byte("__name__"))), label("job", "a"), sample),
	} {
		b := scanned(t, NewKeys(), V1, field(1, series))
		if got := labelsOf(t, b, 0); !labels.Equal(got, want) || b.Times[0] != 7 || b.Values[0] != 0 {
			t.Errorf("%s: %s %v %v", name, got, b.Times, b.Values)
		}
	}
}

func TestSymbolsMayFollowSeries(t *testing.T) {
	body := slices.Concat(
		field(5, field(1, []byte{1}), field(2, []byte{0x10, 7}), []byte{0x08, 2}), // packed, then unpacked
		field(4), field(4, []byte("__name__")), field(4, []byte("up")))
	b := scanned(t, NewKeys(), V2, body)
	if got := labelsOf(t, b, 0); !labels.Equal(got, labels.FromStrings("__name__", "up")) {
		t.Errorf("labels = %s", got)
	}
}

func TestEqualBytesHashEqualAndOthersDoNot(t *testing.T) {
	series := remotewritetest.Series(20_000)
	for v, encode := range map[Version]func([]labels.Labels, float64, int64) []byte{V1: remotewritetest.V1, V2: remotewritetest.V2} {
		k := NewKeys()
		seen := map[Hash]bool{}
		b := scanned(t, k, v, encode(series, 1, 5))
		for _, h := range b.Hashes {
			if seen[h] {
				t.Fatalf("v%d: two series with one hash", v)
			}
			seen[h] = true
		}
		if again := scanned(t, k, v, encode(series[500:600], 2, 6)); !slices.Equal(again.Hashes, b.Hashes[500:600]) {
			t.Errorf("v%d: the same series in another request hash differently", v)
		}
		if other := scanned(t, NewKeys(), v, encode(series[:1], 1, 5)); other.Hashes[0] == b.Hashes[0] {
			t.Errorf("v%d: hashes do not depend on the process's keys", v)
		}
	}
}

func TestSymbolOrderChangesTheHash(t *testing.T) {
	k := NewKeys()
	symbols := slices.Concat(field(4), field(4, []byte("a")), field(4, []byte("b")), field(4, []byte("c")), field(4, []byte("d")))
	seen := map[Hash][]byte{}
	for _, refs := range [][]byte{{1, 2, 3, 4}, {3, 4, 1, 2}, {2, 1, 3, 4}, {1, 3, 2, 4}, {1, 2}, {1, 2, 1, 2}, {1, 2, 0, 0}, {}} {
		h := scanned(t, k, V2, append(slices.Clone(symbols), field(5, field(1, refs), field(2, []byte{0x10, 7}))...)).Hashes[0]
		if seen[h] != nil {
			t.Errorf("%v and %v have one hash", refs, seen[h])
		}
		seen[h] = refs
	}
}

func TestMalformedBodiesAreInvalid(t *testing.T) {
	symbols := slices.Concat(field(4), field(4, []byte("a")))
	for name, c := range map[string]struct {
		v    Version
		body []byte
		want string
	}{
		"cut body":           {V1, bodyV1()[:40], "byte"},
		"field 0":            {V1, []byte{0x00, 0x01}, "field tag"},
		"end of no group":    {V1, []byte{0x14}, "unknown field"},
		"endless group":      {V1, []byte{0x13, 0x13}, "unknown field"},
		"sample as varint":   {V1, field(1, []byte{0x10, 1}), "time series"},
		"cut label":          {V1, field(1, []byte{0x0a, 0x7f}), "label"},
		"overlong varint":    {V1, bytes.Repeat([]byte{0xff}, 11), "field tag"},
		"ref out of range":   {V2, append(symbols, field(5, field(1, []byte{1, 2}))...), "label reference"},
		"odd refs":           {V2, append(symbols, field(5, field(1, []byte{1}))...), "odd number"},
		"symbol 0 not empty": {V2, slices.Concat(field(4, []byte("a")), field(5)), "symbol 0"},
		"no symbols":         {V2, field(5, field(2, []byte{0x10, 1})), "symbol 0"},
		"help out of range":  {V2, append(symbols, field(5, field(5, []byte{0x18, 9}))...), "metadata"},
	} {
		err := new(Batch).Scan(NewKeys(), &Request{Version: c.v, Body: c.body})
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want Invalid naming %q", name, err, c.want)
		}
	}
}

func TestABodyOfVersion1IsNotTakenForVersion2(t *testing.T) {
	b := new(Batch)
	err := b.Scan(NewKeys(), &Request{Version: V2, Body: bodyV1()})
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "remote write 1.0") {
		t.Errorf("a 1.0 body sent as 2.0: %v", err)
	}
}

func TestExpansionIsBounded(t *testing.T) {
	samples := field(1, label("__name__", "up"), bytes.Repeat([]byte{0x12, 0x00}, maxItems+1))
	if err := new(Batch).Scan(NewKeys(), &Request{Version: V1, Body: samples}); errs.KindOf(err) != errs.BodyTooLarge {
		t.Errorf("samples of two bytes: got %v, want BodyTooLarge", err)
	}
	// One long symbol named by very many labels is resolved only up to the limit.
	body := slices.Concat(field(4), field(4, []byte("a")), field(4, bytes.Repeat([]byte("x"), 1<<20)),
		field(5, field(1, bytes.Repeat([]byte{1, 2}, 100_000)), field(2, []byte{0x10, 1})))
	b := scanned(t, NewKeys(), V2, body)
	if ls, n, err := b.Labels(0, nil, 30); len(ls) != 30 || n != 100_000 || err != nil {
		t.Errorf("labels = %d of %d, %v; want 30 of 100000", len(ls), n, err)
	}
	hist := field(1, label("__name__", "up"), field(4, field(12, make([]byte, MaxBuckets+1))))
	if _, err := scanned(t, NewKeys(), V1, hist).Histogram(0); errs.KindOf(err) != errs.Invalid {
		t.Errorf("histogram with too many buckets: got %v, want Invalid", err)
	}
}

func TestLabelsOwnTheirMemory(t *testing.T) {
	body := bodyV1()
	b := scanned(t, NewKeys(), V1, body)
	ls := labelsOf(t, b, 0)
	clear(body)
	if want := labels.FromStrings("__name__", "up", "job", "a"); !labels.Equal(ls, want) {
		t.Errorf("labels changed with the body: %s", ls)
	}
}

func TestFinerHistogramsAreReduced(t *testing.T) {
	h := Histogram{H: &histogram.Histogram{Schema: 20, Count: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}}}
	if err := h.Validate(); err != nil || h.H.Schema != histogram.ExponentialSchemaMax {
		t.Errorf("schema = %d, %v", h.H.Schema, err)
	}
	h = Histogram{H: &histogram.Histogram{Schema: 1, Count: 2}}
	if err := h.Validate(); errs.KindOf(err) != errs.Invalid {
		t.Errorf("count without buckets: got %v, want Invalid", err)
	}
}

// sameFloat compares bits, so that NaNs are equal to themselves.
func sameFloat(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }

func sortedLabels(ls []prompb.Label) labels.Labels {
	ls = slices.DeleteFunc(slices.Clone(ls), func(l prompb.Label) bool { return l.Value == "" })
	slices.SortStableFunc(ls, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	sb := labels.NewScratchBuilder(len(ls))
	for _, l := range ls {
		sb.Add(l.Name, l.Value)
	}
	return sb.Labels()
}

func TestLabelsAreASCIIOnlyIfAllOfThemAre(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		want        bool
	}{
		{"job", "api", true}, {"a", "", true}, {"é", "1", false}, {"job", "é", false}, {"j", "\xff", false}, {"job", "1234567é", false},
		{"job", "a rather long value that ends in another character: é", false}, {"job", "a rather long value of ASCII characters alone", true},
	} {
		b := scanned(t, NewKeys(), V1, remotewritetest.V1([]labels.Labels{
			labels.FromStrings("__name__", "é"), labels.FromStrings("__name__", "up", tc.name, tc.value)}, 1, 1000))
		if got := b.ASCII(1); got != tc.want {
			t.Errorf("%q=%q: %v, want %v", tc.name, tc.value, got, tc.want)
		}
		if b.ASCII(0) {
			t.Error("é is taken for ASCII")
		}
	}
}
