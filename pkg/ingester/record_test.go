package ingester

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

func exampleRecord() *record {
	return &record{
		tenant: "t1", session: 1<<63 + 5,
		series:  []series{{1, metric("m")}, {math.MaxUint32, labels.EmptyLabels()}},
		samples: []sample{{1, base, 1.5}, {900, base - 1, math.Inf(1)}, {3, math.MinInt64, 0}},
		histograms: []histogramSample{{4, base, tsdbutil.GenerateTestHistogram(2), nil}, {5, base, nil, tsdbutil.GenerateTestFloatHistogram(2)},
			{6, base, tsdbutil.GenerateTestCustomBucketsHistogram(2), nil},
			{7, base, nil, tsdbutil.GenerateTestCustomBucketsFloatHistogram(2)}, {8, base, &histogram.Histogram{}, nil}},
		exemplars: []exemplarSample{{1, exemplar.Exemplar{Labels: metric("x"), Value: 2, Ts: base, HasTs: true}}},
	}
}

func text(r *record) string {
	out := fmt.Sprint(r.tenant, r.session, r.series, r.samples, r.exemplars)
	for _, h := range r.histograms {
		out += fmt.Sprint(h.ref, h.t, h.h, h.fh)
	}
	return out
}

func TestRecordsReadBackAsWritten(t *testing.T) {
	in := exampleRecord()
	b := in.appendTo(nil)
	var out record
	for range 2 { // the second time in used memory
		if err := out.decode(b); err != nil {
			t.Fatal(err)
		}
		if text(in) != text(&out) {
			t.Fatalf("got  %s\nwant %s", text(&out), text(in))
		}
	}
	for n := range b {
		if err := out.decode(b[:n]); err == nil {
			t.Fatalf("a record cut to %d of %d bytes was read", n, len(b))
		}
	}
	if err := out.decode(append(b, 0)); err == nil {
		t.Error("a record with a tail was read")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(exampleRecord().appendTo(nil))
	f.Add((&record{tenant: "x", samples: []sample{{1, 2, 3}}}).appendTo(nil))
	f.Add([]byte{recordPush, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again record
		if r.decode(b) != nil {
			return
		}
		if err := again.decode(r.appendTo(nil)); err != nil {
			t.Fatalf("a record that was read cannot be written and read again: %v", err)
		}
		if text(&r) != text(&again) {
			t.Fatalf("first  %s\nsecond %s", text(&r), text(&again))
		}
	})
}

func TestTablesGrowAndKeepWhatTheyHold(t *testing.T) {
	var b bindings
	var s bits
	for k := range uint64(5000) {
		i := uint32(k * k % 100_003)
		b.bind(frame.MakeRef(i, uint16(k)), head.Ref(k+1))
		if got := b.lookup(frame.MakeRef(i, uint16(k))); got != head.Ref(k+1) {
			t.Fatalf("%d: got %d", k, got)
		}
		if b.lookup(frame.MakeRef(i, uint16(k)+1)) != 0 {
			t.Fatal("another generation was found")
		}
		s.set(k * 37)
	}
	if !s.has(37*4999) || s.has(37*4999+1) || s.has(1<<40) {
		t.Error("set of bits is wrong")
	}
}
