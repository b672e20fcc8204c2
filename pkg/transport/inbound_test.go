package transport

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// rawStream is a stream of a client that writes messages by hand, with gRPC's own codec.
func rawStream(t *testing.T, addr string) grpc.BidiStreamingClient[ingesterpb.Frames, ingesterpb.Results] {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStreamInterceptor(streamClient))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
	})
	s, err := ingesterpb.NewIngesterWriteClient(conn).Push(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func record(t *testing.T, seq uint64, f *frame.Frame) []byte {
	t.Helper()
	var e frame.Encoder
	b, err := e.AppendFrame(nil, seq, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// results reads n results.
func results(t *testing.T, s grpc.BidiStreamingClient[ingesterpb.Frames, ingesterpb.Results], n int) map[uint64]frame.Result {
	t.Helper()
	out := make(map[uint64]frame.Result)
	for len(out) < n {
		m, err := s.Recv()
		if err != nil {
			t.Fatalf("after %d of %d results: %v", len(out), n, err)
		}
		for b := m.GetData(); len(b) > 0; {
			rec, rest, err := frame.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			var r frame.Result
			if err := frame.DecodeResult(rec, &r); err != nil {
				t.Fatal(err)
			}
			out[rec.Sequence] = r
			b = rest
		}
	}
	return out
}

func TestDamagedFrameCostsOnlyItself(t *testing.T) {
	noLeaks(t)
	ing := startIngester(t, "", &memoryServer{})
	s := rawStream(t, ing.addr)
	damaged := record(t, 2, scrape(0, 3, true))
	damaged[13] = 0xff // flags
	later := record(t, 3, scrape(0, 3, true))
	later[4] = 99 // version
	escape := scrape(0, 3, true)
	escape.Tenant = "../other"
	var message []byte
	for _, r := range [][]byte{record(t, 1, scrape(0, 3, true)), damaged, later, record(t, 4, escape), record(t, 5, scrape(0, 3, true))} {
		message = append(message, r...)
	}
	if err := s.Send(&ingesterpb.Frames{Data: message}); err != nil {
		t.Fatal(err)
	}
	got := results(t, s, 5)
	for seq, want := range map[uint64]errs.Kind{2: errs.Invalid, 3: errs.Unimplemented, 4: errs.Invalid} {
		if r := got[seq]; r.Outcome != frame.Failed || r.Kind != want {
			t.Errorf("frame %d: %+v, want failed as %v", seq, r, want)
		}
	}
	if got[1].Outcome != frame.Stored || got[5].Outcome != frame.Stored {
		t.Errorf("intact frames: %+v, %+v", got[1], got[5])
	}
}

func TestLostFramingEndsTheStream(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{}
	ing := startIngester(t, "", srv)
	s := rawStream(t, ing.addr)
	if err := s.Send(&ingesterpb.Frames{Data: []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); errs.KindOf(err) != errs.Invalid {
		t.Errorf("%v, want Invalid", err)
	}
	eventually(t, "stream closes", func() bool { return srv.closed.Load() == 1 })
}

func TestFramesBeforeTheEndOfAStreamAreAnswered(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{}
	ing := startIngester(t, "", srv)
	s := rawStream(t, ing.addr)
	for i := range 300 {
		if err := s.Send(&ingesterpb.Frames{Data: record(t, uint64(i), scrape(i, 1, true))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for seq, r := range results(t, s, 300) {
		if r.Outcome != frame.Stored {
			t.Errorf("frame %d: %+v", seq, r)
		}
	}
	eventually(t, "stream closes", func() bool { return srv.closed.Load() == 1 })
}

func TestDrainAnswersFramesUnderWay(t *testing.T) {
	noLeaks(t)
	release, arrived := make(chan struct{}), make(chan struct{}, 10)
	srv := &memoryServer{before: func(context.Context, *frame.Frame) {
		arrived <- struct{}{}
		<-release
	}}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, 30*time.Second)
	r := replicaFor(t, pool, ing.addr)
	got := make(chan frame.Result, 5)
	for i := range 5 {
		r.Push(scrape(i, 1, true), func(res frame.Result) { got <- res })
	}
	for range 5 {
		<-arrived
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := ing.write.Drain(short); err == nil {
		t.Error("drain ended while frames were under way")
	}
	close(release)
	if err := ing.write.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if res := <-got; res.Outcome != frame.Stored {
			t.Errorf("%+v, want stored", res)
		}
	}
	if res := push(r, scrape(0, 1, true)); res.Kind != errs.Unavailable {
		t.Errorf("after drain: %+v, want Unavailable", res)
	}
}

func TestPanicWhileStoringFailsOneFrame(t *testing.T) {
	noLeaks(t)
	var once atomic.Bool
	srv := &memoryServer{before: func(context.Context, *frame.Frame) {
		if once.CompareAndSwap(false, true) {
			panic("boom")
		}
	}}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, 10*time.Second)
	r := replicaFor(t, pool, ing.addr)
	if res := push(r, scrape(0, 1, true)); res.Outcome != frame.Failed || res.Kind != errs.Internal || strings.Contains(res.Message, "boom") {
		t.Errorf("%+v, want Internal without what was thrown", res)
	}
	if res := push(r, scrape(0, 1, true)); res.Outcome != frame.Stored {
		t.Errorf("next frame: %+v", res)
	}
}
