package remotewrite

import (
	"bytes"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// decoded is one series as the generated decoders see it.
type decoded struct {
	labels    labels.Labels
	samples   []writev2.Sample
	hists     []Histogram
	exemplars []prompb.Exemplar
}

// compare checks that b, and a selection of all its series in reverse, report exactly want, where
// their decoders accept.
func compare(t *testing.T, b *Batch, want []decoded) {
	t.Helper()
	compareBatch(t, b, want)
	var rows []uint32
	var reverse []decoded
	for i := range want {
		rows, reverse = append(rows, uint32(len(want)-1-i)), append(reverse, want[len(want)-1-i])
	}
	selected := new(Batch)
	selected.Select(b, rows, true)
	compareBatch(t, selected, reverse)
	if selected.MetadataCount() != b.MetadataCount() {
		t.Fatalf("metadata selected = %d, want %d", selected.MetadataCount(), b.MetadataCount())
	}
	selected.Release()
}

func compareBatch(t *testing.T, b *Batch, want []decoded) {
	t.Helper()
	if b.Len() != len(want) {
		t.Fatalf("series = %d, want %d", b.Len(), len(want))
	}
	for i, w := range want {
		if ls, _, err := b.Labels(i, nil, 1<<20); err == nil {
			var got []prompb.Label
			for _, l := range ls {
				got = append(got, prompb.Label{Name: string(l.Name), Value: string(l.Value)})
			}
			if !labels.Equal(sortedLabels(got), w.labels) {
				t.Fatalf("labels of series %d = %v, want %v", i, got, w.labels)
			}
			compareFound(t, b, i, ls)
		}
		from, to := b.Samples(i)
		if to-from != len(w.samples) {
			t.Fatalf("samples of series %d = %d, want %d", i, to-from, len(w.samples))
		}
		for j, s := range w.samples {
			start := int64(0)
			if len(b.StartTimes) > 0 {
				start = b.StartTimes[from+j]
			}
			if b.Times[from+j] != s.Timestamp || !sameFloat(b.Values[from+j], s.Value) || start != s.StartTimestamp {
				t.Fatalf("sample %d of series %d differs", j, i)
			}
		}
		compareRest(t, b, i, w)
	}
}

// compareFound checks what is found by name. A label with two names may be missed.
func compareFound(t *testing.T, b *Batch, i int, ls []Label) {
	t.Helper()
	for _, l := range ls {
		f := b.Find(string(l.Name))
		v := f.Value(i)
		if v != nil && !slices.ContainsFunc(ls, func(m Label) bool { return bytes.Equal(m.Name, l.Name) && bytes.Equal(m.Value, v) }) {
			t.Fatalf("value of label %q of series %d = %q, but has %q", l.Name, i, v, ls)
		}
	}
}

func compareRest(t *testing.T, b *Batch, i int, w decoded) {
	t.Helper()
	from, to := b.Histograms(i)
	if to-from != len(w.hists) {
		t.Fatalf("histograms of series %d = %d, want %d", i, to-from, len(w.hists))
	}
	for j, want := range w.hists {
		got, err := b.Histogram(from + j)
		if err != nil {
			continue
		}
		if got.Time != want.Time || got.StartTime != want.StartTime || (got.H == nil) != (want.H == nil) {
			t.Fatalf("histogram %d of series %d = %+v, want %+v", j, i, got, want)
		}
		if b.HistogramStart(from+j) != got.StartTime {
			t.Fatalf("start of histogram %d of series %d = %d, want %d", j, i, b.HistogramStart(from+j), got.StartTime)
		}
		if got.H != nil && !got.H.Equals(want.H) || got.FH != nil && !got.FH.Equals(want.FH) {
			t.Fatalf("histogram %d of series %d = %v %v, want %v %v", j, i, got.H, got.FH, want.H, want.FH)
		}
		_ = got.Validate() // must not panic
	}
	from, to = b.Exemplars(i)
	if to-from != len(w.exemplars) {
		t.Fatalf("exemplars of series %d = %d, want %d", i, to-from, len(w.exemplars))
	}
	for j, want := range w.exemplars {
		x, ls, n, err := b.Exemplar(from+j, nil, 1<<20)
		if err != nil {
			continue
		}
		if x.Time != want.Timestamp || !sameFloat(x.Value, want.Value) || n != len(want.Labels) {
			t.Fatalf("exemplar %d of series %d = %+v %v, want %+v", j, i, x, ls, want)
		}
		for k, l := range want.Labels {
			if string(ls[k].Name) != l.Name || string(ls[k].Value) != l.Value {
				t.Fatalf("label %d of exemplar %d = %s, want %v", k, j, ls[k], l)
			}
		}
	}
}

func either(start, ms int64, isFloat bool, h *histogram.Histogram, fh *histogram.FloatHistogram) Histogram {
	if isFloat {
		return Histogram{Time: ms, StartTime: start, FH: fh}
	}
	return Histogram{Time: ms, StartTime: start, H: h}
}

func FuzzScanV1(f *testing.F) {
	f.Add(bodyV1())
	f.Add(remotewritetest.V1(remotewritetest.Series(3), 1, 5))
	k := NewKeys()
	f.Fuzz(func(t *testing.T, body []byte) {
		b := new(Batch)
		err := b.Scan(k, &Request{Version: V1, Body: body})
		var req prompb.WriteRequest
		if err != nil || req.Unmarshal(body) != nil {
			return
		}
		var want []decoded
		for _, ts := range req.Timeseries {
			d := decoded{labels: sortedLabels(ts.Labels), exemplars: ts.Exemplars}
			for _, s := range ts.Samples {
				d.samples = append(d.samples, writev2.Sample{Value: s.Value, Timestamp: s.Timestamp})
			}
			for _, h := range ts.Histograms {
				d.hists = append(d.hists, either(0, h.Timestamp, h.IsFloatHistogram(), h.ToIntHistogram(), h.ToFloatHistogram()))
			}
			if len(d.samples)+len(d.hists)+len(d.exemplars) > 0 {
				want = append(want, d)
			}
		}
		compare(t, b, want)
		if b.MetadataCount() != len(req.Metadata) {
			t.Fatalf("metadata = %d, want %d", b.MetadataCount(), len(req.Metadata))
		}
		for j, w := range req.Metadata {
			m, err := b.Metadata(j)
			if err == nil && (string(m.Name) != w.MetricFamilyName || string(m.Help) != w.Help || string(m.Unit) != w.Unit) {
				t.Fatalf("metadata %d = %+v, want %+v", j, m, w)
			}
		}
	})
}

func FuzzScanV2(f *testing.F) {
	f.Add(bodyV2())
	f.Add(remotewritetest.V2(remotewritetest.Series(3), 1, 5))
	k := NewKeys()
	f.Fuzz(func(t *testing.T, body []byte) {
		b := new(Batch)
		err := b.Scan(k, &Request{Version: V2, Body: body})
		var req writev2.Request
		if err != nil || req.Unmarshal(body) != nil {
			return
		}
		var want []decoded
		for _, ts := range req.Timeseries {
			d := decoded{labels: sortedLabels(resolve(ts.LabelsRefs, req.Symbols)), samples: ts.Samples}
			for _, x := range ts.Exemplars {
				ls := resolve(x.LabelsRefs, req.Symbols)
				d.exemplars = append(d.exemplars, prompb.Exemplar{Labels: ls, Value: x.Value, Timestamp: x.Timestamp})
			}
			for _, h := range ts.Histograms {
				d.hists = append(d.hists, either(h.StartTimestamp, h.Timestamp, h.IsFloatHistogram(), h.ToIntHistogram(), h.ToFloatHistogram()))
			}
			m, err := ts.ToMetadata(req.Symbols)
			says := err == nil && (m.Type != "unknown" || m.Help != "" || m.Unit != "")
			if len(d.samples)+len(d.hists)+len(d.exemplars) > 0 || says {
				want = append(want, d)
			}
			if i := len(want) - 1; says && i < b.Len() {
				if got := b.SeriesMetadata(i); got.Type != string(m.Type) || string(got.Help) != m.Help || string(got.Unit) != m.Unit {
					t.Fatalf("metadata of series %d = %+v, want %+v", i, got, m)
				}
			}
		}
		compare(t, b, want)
	})
}

// resolve returns pairs of symbols; references our scan does not check, of exemplars, may be wrong.
func resolve(refs []uint32, symbols []string) (ls []prompb.Label) {
	for i := 0; i+1 < len(refs); i += 2 {
		if int(refs[i]) >= len(symbols) || int(refs[i+1]) >= len(symbols) {
			return nil
		}
		ls = append(ls, prompb.Label{Name: symbols[refs[i]], Value: symbols[refs[i+1]]})
	}
	return ls
}

func FuzzDecompress(f *testing.F) {
	for _, e := range []string{"snappy", "zstd", "gzip"} {
		f.Add(compressed(f, e, []byte("some text, some text")), e)
	}
	f.Fuzz(func(t *testing.T, src []byte, encoding string) {
		const most = 1 << 16
		out, err := Decompress(nil, src, encoding, most)
		if err == nil && len(out) > most {
			t.Fatalf("%d bytes, at most %d are allowed", len(out), most)
		}
		if again, err2 := Decompress(make([]byte, 10), src, encoding, most); (err == nil) != (err2 == nil) || !bytes.Equal(out, again) {
			t.Fatal("the result depends on dst")
		}
	})
}
