package transport

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/grafana/dskit/httpgrpc"
	"google.golang.org/grpc/encoding"
	stock "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func marshal(t testing.TB, c encoding.CodecV2, v any) []byte {
	t.Helper()
	s, err := c.Marshal(v)
	if err != nil {
		t.Fatalf("marshal %T: %v", v, err)
	}
	defer s.Free()
	return s.Materialize()
}

func slice(b []byte) mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(b)} }

func TestMessagesOfOthersAreCodedAsByGRPC(t *testing.T) {
	ours, theirs := newCodec(newBufferPool()), encoding.GetCodecV2(stock.Name)
	for _, c := range []struct{ in, out any }{
		{&httpgrpc.HTTPRequest{Method: "GET", Url: "/x", Headers: []*httpgrpc.Header{{Key: "k", Values: []string{"v"}}}}, &httpgrpc.HTTPRequest{}}, // gogo
		{&grpc_health_v1.HealthCheckRequest{Service: "s"}, &grpc_health_v1.HealthCheckRequest{}},
		{&ingesterpb.Series{Labels: []string{"a", "b"}, Chunks: []*ingesterpb.Chunk{{MinTime: -5, Data: []byte("x")}}}, &ingesterpb.Series{}}, // vtproto
		{&ingesterpb.Frames{Data: bytes.Repeat([]byte("x"), 5000)}, &ingesterpb.Frames{}},
	} {
		b := marshal(t, ours, c.in)
		if want := marshal(t, theirs, c.in); !bytes.Equal(b, want) {
			t.Errorf("%T: %x, want %x", c.in, b, want)
		}
		if err := ours.Unmarshal(slice(b), c.out); err != nil {
			t.Errorf("%T: %v", c.in, err)
		}
		if again := marshal(t, ours, c.out); !bytes.Equal(again, b) {
			t.Errorf("%T changed on the way: %x, want %x", c.in, again, b)
		}
	}
	if _, err := ours.Marshal("no message"); err == nil {
		t.Error("a string was marshalled")
	}
}

func TestPackedMessagesAreReadAsByGRPC(t *testing.T) {
	ours, theirs := newCodec(newBufferPool()), encoding.GetCodecV2(stock.Name)
	chunks := &ingesterpb.QueryResponse{CompleteSince: 5, Packed: []byte("abc"), PackedSeries: 2, PackedChunks: 3,
		Series: []*ingesterpb.Series{{Labels: []string{"a", "b"}}}}
	points := &querypb.Part{Head: &querypb.Head{Type: querypb.Head_MATRIX}, Packed: []byte("abc"), PackedSeries: 1, PackedPoints: 9, Samples: 7, Header: []string{"x"}}
	blocks := &storepb.SeriesResponse{Packed: []byte("abc"), PackedSeries: 2, PackedChunks: 3, Blocks: [][]byte{[]byte("b")}, Work: &storepb.Work{Series: 2}}
	for _, m := range []proto.Message{chunks, points, blocks, &storepb.SeriesResponse{Blocks: [][]byte{[]byte("b")}}, &ingesterpb.QueryResponse{CompleteSince: 1}, &querypb.Part{Body: []byte("b")}, &querypb.Part{}} {
		b := marshal(t, theirs, m)
		twice := append(append([]byte(nil), b...), b...) // as protobuf has it, the last counts and lists grow
		unknown := append(append([]byte(nil), b...), 0xfa, 0x3e, 1, 'x')
		otherKind := append(append([]byte(nil), b...), packedChunksField<<3, 7)
		for what, sent := range map[string][]byte{"once": b, "twice": twice, "unknown": unknown, "other kind": otherKind} {
			got, want := m.ProtoReflect().New().Interface(), m.ProtoReflect().New().Interface()
			ourErr, theirErr := ours.Unmarshal(slice(bytes.Clone(sent)), got), theirs.Unmarshal(slice(sent), want)
			if (ourErr == nil) != (theirErr == nil) || ourErr == nil && !proto.Equal(got, want) {
				t.Errorf("%T %s: %v, %v, want %v, %v", m, what, got, ourErr, want, theirErr)
			}
		}
		for n := range b {
			got, want := m.ProtoReflect().New().Interface(), m.ProtoReflect().New().Interface()
			ourErr, theirErr := ours.Unmarshal(slice(bytes.Clone(b[:n])), got), theirs.Unmarshal(slice(b[:n]), want)
			if (ourErr == nil) != (theirErr == nil) || ourErr == nil && !proto.Equal(got, want) {
				t.Errorf("%T, %d of %d bytes: %v, %v, want %v, %v", m, n, len(b), got, ourErr, want, theirErr)
			}
		}
	}
}

func TestAMessageIsRelayedAsItCame(t *testing.T) {
	c := newCodec(newBufferPool())
	part := &querypb.Part{Head: &querypb.Head{Type: querypb.Head_VECTOR}, Packed: bytes.Repeat([]byte("x"), 5000), Samples: 7}
	var m work.Relayed
	for range 2 { // its memory is used again
		if err := c.Unmarshal(slice(marshal(t, c, &querypb.FromWorker{Part: part, Done: true})), &m); err != nil || !m.Done {
			t.Fatalf("%v, %v", m, err)
		}
		if got, want := marshal(t, c, work.EncodedPart(m.Part)), marshal(t, c, part); !bytes.Equal(got, want) {
			t.Errorf("%d bytes arrived, want %d", len(got), len(want))
		}
	}
}

func TestUnmarshalReplacesWhatAMessageHeld(t *testing.T) {
	m := &ingesterpb.LabelNamesResponse{Names: []string{"old"}}
	c := newCodec(newBufferPool())
	if err := c.Unmarshal(slice(marshal(t, c, &ingesterpb.LabelNamesResponse{Names: []string{"new"}})), m); err != nil || len(m.Names) != 1 || m.Names[0] != "new" {
		t.Errorf("%v, %v", m, err)
	}
}

// known is m without fields it does not know, of which the bytes are kept in different forms.
func known(t *testing.T, m *ingesterpb.QueryRequest) *ingesterpb.QueryRequest {
	b, err := proto.Marshal(m)
	out := &ingesterpb.QueryRequest{}
	if err == nil {
		err = proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// FuzzCodec compares the fast paths with gRPC's codec: what that accepts, they accept with the
// same meaning, and nothing makes them panic.
func FuzzCodec(f *testing.F) {
	ours, theirs := newCodec(newBufferPool()), encoding.GetCodecV2(stock.Name)
	f.Add(marshal(f, theirs, &ingesterpb.Frames{Data: []byte("abc")}))
	f.Add(marshal(f, theirs, &ingesterpb.QueryRequest{MinTime: 1, Matchers: []*ingesterpb.Matcher{{Name: "a", Value: "b"}}}))
	f.Add([]byte{0x0a, 0x01, 'x', 0x0a, 0x02, 'y', 'z', 0x10, 0x05})
	f.Fuzz(func(t *testing.T, b []byte) {
		var in incoming
		var want ingesterpb.Frames
		oursErr, theirsErr := ours.Unmarshal(slice(b), &in), theirs.Unmarshal(slice(b), &want)
		if theirsErr == nil && (oursErr != nil || !bytes.Equal(in.data, want.GetData())) {
			t.Errorf("frames: %x, %v; want %x", in.data, oursErr, want.GetData())
		}
		if oursErr == nil {
			in.buf.Free()
		}
		var fast, slow ingesterpb.QueryRequest
		oursErr, theirsErr = ours.Unmarshal(slice(b), &fast), theirs.Unmarshal(slice(b), &slow)
		if theirsErr == nil && (oursErr != nil || !proto.Equal(known(t, &fast), known(t, &slow))) {
			t.Errorf("query: %v, %v; want %v", &fast, oursErr, &slow)
		}
		var req httpgrpc.HTTPRequest // falls through to gRPC's codec
		_ = ours.Unmarshal(slice(b), &req)
	})
}

// TestWindowAgreesWithAPlainMap runs random operations on a window and on the plainest form of one.
func TestWindowAgreesWithAPlainMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var w window
	waiting := make(map[uint64]int) // cost by sequence
	unsent := make(map[uint64]bool)
	called := make(map[uint64]int)
	next := uint64(0)
	for step := range 20_000 {
		switch op := r.IntN(10); {
		case op < 5 && len(waiting) < 500:
			seq := next
			size := 1 + r.IntN(100)
			got := w.add(pending{done: func(frame.Result) { called[seq]++ }, frame: &encoded{record: make([]byte, size)}, deadline: time.Unix(int64(seq), 0), cost: size})
			if got != seq {
				t.Fatalf("step %d: sequence %d, want %d", step, got, seq)
			}
			waiting[seq], unsent[seq] = size, true
			next++
		case op < 8 && next > 0:
			seq := next - 1 - uint64(r.IntN(min(600, int(next))))
			done, enc := w.finish(seq)
			_, want := waiting[seq]
			if (done != nil) != want || (enc != nil) != (want && unsent[seq]) {
				t.Fatalf("step %d: finish %d: done %v, frame %v", step, seq, done != nil, enc != nil)
			}
			if done != nil {
				done(frame.Result{})
			}
			delete(waiting, seq)
			delete(unsent, seq)
		default:
			for _, q := range w.take(nil, 300) {
				if !unsent[q.seq] {
					t.Fatalf("step %d: %d was taken twice or after its end", step, q.seq)
				}
				delete(unsent, q.seq)
			}
		}
		sum := 0
		for _, c := range waiting {
			sum += c
		}
		if w.bytes != sum || w.empty() != (len(waiting) == 0) {
			t.Fatalf("step %d: %d bytes, empty %v; want %d bytes in %d frames", step, w.bytes, w.empty(), sum, len(waiting))
		}
	}
	for seq, n := range called {
		if n != 1 {
			t.Fatalf("frame %d was answered %d times", seq, n)
		}
	}
}
