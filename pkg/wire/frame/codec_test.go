package frame

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// sampleFrame is one scrape of n series, all bound before.
func sampleFrame(n int) *Frame {
	f := &Frame{Tenant: "team-a", Source: API}
	for i := range n {
		f.Refs = append(f.Refs, MakeRef(uint32(i*3), 0))
		f.Times = append(f.Times, 1_700_000_000_000)
		f.Values = append(f.Values, float64(i)*1.5)
	}
	return f
}

func defFrame(n int) *Frame {
	f := sampleFrame(n)
	for i := range n {
		f.Defs = append(f.Defs, Def{Ref: f.Refs[i], Token: uint32(i) * 7919, Labels: labels.FromStrings(
			"__name__", "http_requests_total", "cluster", "eu-1", "instance", fmt.Sprintf("10.0.%d.%d:9090", i/250, i%250),
			"job", "api", "method", "GET", "namespace", "prod", "pod", fmt.Sprintf("api-%d", i/20), "status", fmt.Sprint(200+i%7))})
	}
	return f
}

func mustEncode(tb testing.TB, sequence uint64, f *Frame) []byte {
	tb.Helper()
	var e Encoder
	b, err := e.AppendFrame(nil, sequence, f)
	if err != nil {
		tb.Fatalf("encode: %v", err)
	}
	return b
}

func mustNext(tb testing.TB, b []byte) Record {
	tb.Helper()
	rec, rest, err := Next(b)
	if err != nil || len(rest) != 0 {
		tb.Fatalf("next: %v, %d bytes left", err, len(rest))
	}
	return rec
}

// random returns a frame that uses everything a frame can hold.
func random(r *rand.Rand) *Frame {
	f := &Frame{Tenant: strings.Repeat("t", r.IntN(5)), Source: Source(r.IntN(2))}
	ref := func() Ref {
		gen := uint16(0)
		if r.IntN(3) == 0 {
			gen = uint16(r.Uint32())
		}
		return MakeRef(r.Uint32()>>r.IntN(32), gen)
	}
	when := func() int64 { return int64(r.Uint64()) >> r.IntN(64) }
	lset := func() labels.Labels {
		b := labels.NewScratchBuilder(4)
		for i := range r.IntN(5) {
			b.Add(fmt.Sprintf("n%d", i), strings.Repeat("v", r.IntN(3)))
		}
		return b.Labels()
	}
	for range r.IntN(40) {
		f.Refs = append(f.Refs, ref())
		f.Times = append(f.Times, when())
		f.Values = append(f.Values, r.NormFloat64())
	}
	if r.IntN(2) == 0 {
		for range f.Refs {
			f.StartTimes = append(f.StartTimes, when())
		}
	}
	for range r.IntN(5) {
		f.Defs = append(f.Defs, Def{Ref: ref(), Token: r.Uint32(), Labels: lset()})
		f.Exemplars = append(f.Exemplars, Exemplar{Ref: ref(), Time: when(), Value: r.Float64(), Labels: lset()})
		f.Metadata = append(f.Metadata, Metadata{Name: "m", Type: "counter", Help: strings.Repeat("h", r.IntN(4))})
		h := Histogram{Ref: ref(), Time: when(), StartTime: when()}
		spans := []histogram.Span{{Offset: -3, Length: 2}, {Offset: 1, Length: 1}}
		if r.IntN(2) == 0 {
			h.H = &histogram.Histogram{CounterResetHint: histogram.GaugeType, Schema: -4, ZeroThreshold: 0.1, Sum: 2.5, Count: 1 << 60, ZeroCount: 3,
				PositiveSpans: spans, PositiveBuckets: []int64{1, -1, math.MinInt64}, NegativeSpans: spans[:1], NegativeBuckets: []int64{0, 5}}
		} else {
			h.FH = &histogram.FloatHistogram{Schema: histogram.CustomBucketsSchema, Sum: 2.5, Count: 7.5,
				PositiveSpans: spans[1:], PositiveBuckets: []float64{1.5}, CustomValues: []float64{1, 2, 3}}
		}
		f.Histograms = append(f.Histograms, h)
	}
	return f
}

// same compares frames, taking an empty column for a missing one.
func same(a, b *Frame) bool {
	norm := func(f *Frame) Frame {
		g := *f
		v := reflect.ValueOf(&g).Elem()
		for i := range v.NumField() {
			if fv := v.Field(i); fv.Kind() == reflect.Slice && fv.Len() == 0 {
				fv.SetZero()
			}
		}
		return g
	}
	return reflect.DeepEqual(norm(a), norm(b))
}

func TestFramesSurviveTheWire(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e Encoder
	var d Decoder
	var got Frame
	for i := range 2000 {
		want := random(r)
		buf, err := e.AppendFrame([]byte("head"), uint64(i), want)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		rec := mustNext(t, buf[4:])
		if err := d.DecodeFrame(rec, &got); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		clear(buf) // The frame owns its memory.
		if rec.Sequence != uint64(i) || !same(want, &got) {
			t.Fatalf("frame %d: got %+v, want %+v", i, got, *want)
		}
	}
}

func TestSpecialFloatsKeepTheirBits(t *testing.T) {
	want := sampleFrame(3)
	bits := []uint64{0x7ff0000000000002, 0x7ff8000000000001, 1 << 63} // stale marker, NaN, -0
	for i, b := range bits {
		want.Values[i] = math.Float64frombits(b)
	}
	var d Decoder
	var got Frame
	if err := d.DecodeFrame(mustNext(t, mustEncode(t, 1, want)), &got); err != nil {
		t.Fatal(err)
	}
	for i, b := range bits {
		if math.Float64bits(got.Values[i]) != b {
			t.Errorf("value %d: %#x, want %#x", i, math.Float64bits(got.Values[i]), b)
		}
	}
}

func TestResultsSurviveTheWire(t *testing.T) {
	for i, want := range []Result{
		{},
		{Outcome: Stored, Kind: errs.Invalid, Message: "out of bounds", Rejected: 7},
		{Outcome: UnknownRefs, Unknown: []Ref{1, MakeRef(9, 65535), MakeRef(1<<32-1, 1)}},
		FailedWith(errs.New(errs.RateLimited, "tenant a: too fast")),
	} {
		var got Result
		rec := mustNext(t, AppendResult(nil, uint64(i), &want))
		if err := DecodeResult(rec, &got); err != nil || rec.Sequence != uint64(i) || !reflect.DeepEqual(got, want) {
			t.Errorf("result %d: got %+v, %v, want %+v", i, got, err, want)
		}
	}
}

func TestCutOrChangedFramesAreRefused(t *testing.T) {
	b := mustEncode(t, 1, random(rand.New(rand.NewPCG(3, 9))))
	var d Decoder
	var f Frame
	for n := range len(b) - headerBytes {
		rec := mustNext(t, b)
		rec.Body = rec.Body[:n]
		if err := d.DecodeFrame(rec, &f); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("body cut to %d bytes: %v, want Invalid", n, err)
		}
		if _, _, err := Next(b[:headerBytes+n]); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("record cut to %d bytes: %v, want Invalid", n, err)
		}
	}
	rec := mustNext(t, b)
	rec.Body = append(bytes.Clone(rec.Body), 0)
	if err := d.DecodeFrame(rec, &f); errs.KindOf(err) != errs.Invalid {
		t.Errorf("trailing byte: %v, want Invalid", err)
	}
	rec = mustNext(t, b)
	rec.Version = 2
	if err := d.DecodeFrame(rec, &f); errs.KindOf(err) != errs.Unimplemented {
		t.Errorf("version 2: %v, want Unimplemented", err)
	}
}

func TestUnsortedLabelsAreRefused(t *testing.T) {
	for _, names := range [][]string{{"b", "a"}, {"a", "a"}, {""}} {
		sb := labels.NewScratchBuilder(2)
		for _, n := range names {
			sb.Add(n, "v")
		}
		f := &Frame{Tenant: "t", Defs: []Def{{Ref: 1, Labels: sb.Labels()}}}
		var d Decoder
		if err := d.DecodeFrame(mustNext(t, mustEncode(t, 1, f)), &Frame{}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("names %q: %v, want Invalid", names, err)
		}
	}
}

func TestBrokenFramesAreNotSent(t *testing.T) {
	for name, f := range map[string]*Frame{
		"columns":   {Refs: []Ref{1}, Times: []int64{1}},
		"bits":      {Defs: []Def{{Ref: 1 << 50}}},
		"histogram": {Histograms: []Histogram{{Ref: 1}}},
		"metadata":  {Metadata: []Metadata{{Help: "h"}}},
	} {
		var e Encoder
		if b, err := e.AppendFrame([]byte("x"), 1, f); errs.KindOf(err) != errs.Internal || string(b) != "x" {
			t.Errorf("%s: %q, %v, want Internal and the buffer as it was", name, b, err)
		}
	}
}

func TestLabelBombIsRefused(t *testing.T) {
	f := &Frame{Tenant: "t"}
	ls := labels.FromStrings("a", strings.Repeat("x", 1<<20))
	for i := range 300 {
		f.Defs = append(f.Defs, Def{Ref: Ref(i), Labels: ls})
	}
	var e Encoder
	if _, err := e.AppendFrame(nil, 1, f); errs.KindOf(err) != errs.BodyTooLarge {
		t.Fatalf("300 MiB of labels in 1 MiB: %v, want BodyTooLarge", err)
	}
	if _, err := e.AppendFrame(nil, 1, defFrame(3)); err != nil {
		t.Fatalf("the encoder is not usable afterwards: %v", err)
	}
}

func TestSampleFramesAreDecodedWithoutAllocation(t *testing.T) {
	f := sampleFrame(2000)
	b := mustEncode(t, 1, f)
	if perSample := float64(len(b)) / 2000; perSample > 13.1 {
		t.Errorf("%.2f bytes a sample, want at most 13.1", perSample)
	}
	var e Encoder
	var d Decoder
	var got Frame
	allocs := testing.AllocsPerRun(20, func() {
		b, _ = e.AppendFrame(b[:0], 1, f)
		rec, _, _ := Next(b)
		if err := d.DecodeFrame(rec, &got); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 4 {
		f.Add(mustEncode(f, 9, random(r)))
	}
	f.Add(mustEncode(f, 1, defFrame(3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		var got, again Frame
		for len(b) > 0 {
			rec, rest, err := Next(b)
			if err != nil {
				return
			}
			b = rest
			if d.DecodeFrame(rec, &got) != nil {
				continue
			}
			// What was accepted can be sent on, and means the same.
			var e Encoder
			out, err := e.AppendFrame(nil, rec.Sequence, &got)
			if err != nil {
				t.Fatalf("a decoded frame cannot be encoded: %v", err)
			}
			if err := d.DecodeFrame(mustNext(t, out), &again); err != nil {
				t.Fatalf("an encoded frame cannot be decoded: %v", err)
			}
			if out2 := mustEncode(t, rec.Sequence, &again); !bytes.Equal(out, out2) {
				t.Fatalf("frame changed on the way:\n%x\n%x", out, out2)
			}
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	for _, r := range []Result{{}, {Outcome: UnknownRefs, Unknown: []Ref{1, 2}}, FailedWith(errs.New(errs.Timeout, "x"))} {
		f.Add(AppendResult(nil, 3, &r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, _, err := Next(b)
		var got, again Result
		if err != nil || DecodeResult(rec, &got) != nil {
			return
		}
		if err := DecodeResult(mustNext(t, AppendResult(nil, rec.Sequence, &got)), &again); err != nil {
			t.Fatalf("an encoded result cannot be decoded: %v", err)
		}
		if got.Kind != again.Kind || got.Message != again.Message || len(got.Unknown) != len(again.Unknown) || got.Rejected != again.Rejected {
			t.Fatalf("result changed on the way: %+v, %+v", got, again)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for name, f := range map[string]*Frame{"samples=2000": sampleFrame(2000), "defs=2000": defFrame(2000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var e Encoder
			var buf []byte
			for b.Loop() {
				buf, _ = e.AppendFrame(buf[:0], 1, f)
			}
			report(b, len(buf))
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, f := range map[string]*Frame{"samples=2000": sampleFrame(2000), "defs=2000": defFrame(2000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			buf := mustEncode(b, 1, f)
			rec := mustNext(b, buf)
			var d Decoder
			var got Frame
			for b.Loop() {
				if err := d.DecodeFrame(rec, &got); err != nil {
					b.Fatal(err)
				}
			}
			report(b, len(buf))
		})
	}
}

func report(b *testing.B, size int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
	b.ReportMetric(float64(size)/2000, "B/sample")
}
