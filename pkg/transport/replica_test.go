package transport

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestBindingsLastAsLongAsTheStream(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, 10*time.Second)
	r := replicaFor(t, pool, ing.addr)
	first := r.Incarnation()
	if res := push(r, scrape(0, 10, false)); res.Outcome != frame.UnknownRefs || len(res.Unknown) != 10 {
		t.Fatalf("unbound series: %+v, want 10 unknown references", res)
	}
	for i, f := range []*frame.Frame{scrape(0, 10, true), scrape(0, 10, false), scrape(5, 5, false)} {
		if res := push(r, f); res.Outcome != frame.Stored {
			t.Fatalf("frame %d: %+v, want stored", i, res)
		}
	}
	if first == 0 || r.Incarnation() != first {
		t.Fatalf("incarnation went from %d to %d without a loss", first, r.Incarnation())
	}
	if got := srv.samples.Load(); got != 25 {
		t.Fatalf("%d samples arrived, want 25", got)
	}
	if again := replicaFor(t, pool, ing.addr); again != r {
		t.Fatal("For returns another replica for the same address")
	}
}

func TestLostStreamFailsWhatWaitsAndForgetsBindings(t *testing.T) {
	noLeaks(t)
	arrived := make(chan struct{}, 100)
	srv := &memoryServer{before: func(ctx context.Context, f *frame.Frame) {
		if f.Source == frame.Rule { // held until the ingester dies
			arrived <- struct{}{}
			<-ctx.Done()
		}
	}}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, 30*time.Second)
	r := replicaFor(t, pool, ing.addr)
	if res := push(r, scrape(0, 3, true)); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	before := r.Incarnation()
	results := make(chan frame.Result, 5)
	for range 5 {
		f := scrape(0, 3, false)
		f.Source = frame.Rule
		r.Push(f, func(res frame.Result) {
			if r.Incarnation() == before {
				t.Error("a frame failed before the incarnation changed")
			}
			results <- res
		})
	}
	for range 5 {
		<-arrived
	}
	ing.kill()
	for range 5 {
		if res := <-results; res.Outcome != frame.Failed || res.Kind != errs.Unavailable || !strings.Contains(res.Message, ing.addr) {
			t.Errorf("frame of a killed ingester: %+v, want Unavailable", res)
		}
	}

	startIngester(t, ing.addr, srv)
	eventually(t, "reconnect", func() bool { return push(r, scrape(0, 3, false)).Outcome == frame.UnknownRefs })
	if res := push(r, scrape(0, 3, true)); res.Outcome != frame.Stored {
		t.Fatalf("after reconnecting: %+v", res)
	}
}

func TestUnreachableIngesterCostsNoWait(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	pool, reg := startReplicas(t, time.Minute)
	r := replicaFor(t, pool, addr)
	for i := range 3 {
		if res := push(r, scrape(0, 1, true)); res.Outcome != frame.Failed || res.Kind != errs.Unavailable {
			t.Fatalf("push %d: %+v, want Unavailable", i, res)
		}
	}
	if counter(t, reg, "amphora_ingester_client_frames_refused_total") == 0 {
		t.Error("no push was refused at once")
	}
}

func TestSlowIngesterIsBoundedInBytes(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	srv := &memoryServer{before: func(context.Context, *frame.Frame) { <-release }}
	ing := startIngester(t, "", srv)
	pool, reg := startReplicas(t, time.Minute)
	r := replicaFor(t, pool, ing.addr)
	f := scrape(0, 40_000, false) // 520 kB
	var done sync.WaitGroup
	var stored, refused atomic.Int64
	for range 200 { // 100 MB
		done.Add(1)
		r.Push(f, func(res frame.Result) {
			defer done.Done()
			if res.Outcome != frame.Failed {
				stored.Add(1)
			} else if res.Kind == errs.Unavailable && strings.Contains(res.Message, "is slow") {
				refused.Add(1)
			}
		})
	}
	if got := counter(t, reg, "amphora_ingester_client_inflight_bytes"); got < replicaBytes/2 || got > replicaBytes+1<<20 {
		t.Errorf("%v bytes in flight, want about %d", got, replicaBytes)
	}
	close(release)
	done.Wait()
	if stored.Load()+refused.Load() != 200 || refused.Load() < 150 {
		t.Errorf("%d answered, %d refused of 200", stored.Load(), refused.Load())
	}
	if got := counter(t, reg, "amphora_ingester_client_inflight_bytes"); got != 0 {
		t.Errorf("%v bytes in flight at the end", got)
	}
}

func TestPushTimesOutOnceAndTheLateAnswerIsDropped(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	srv := &memoryServer{before: func(context.Context, *frame.Frame) { <-release }}
	ing := startIngester(t, "", srv)
	pool, reg := startReplicas(t, 3*time.Second) // frames that are not under way by then never go
	r := replicaFor(t, pool, ing.addr)
	var calls atomic.Int64
	results := make(chan frame.Result, 20)
	for range 10 {
		r.Push(scrape(0, 1, true), func(res frame.Result) {
			calls.Add(1)
			results <- res
		})
	}
	for range 10 {
		if res := <-results; res.Outcome != frame.Failed || res.Kind != errs.Timeout {
			t.Errorf("%+v, want Timeout", res)
		}
	}
	eventually(t, "frames reach the ingester", func() bool { return srv.opened.Load() == 1 })
	close(release)
	eventually(t, "late answers arrive", func() bool { return counter(t, reg, "amphora_ingester_client_late_results_total") == 10 })
	if calls.Load() != 10 {
		t.Errorf("done was called %d times for 10 frames", calls.Load())
	}
	eventually(t, "the stream still works", func() bool { return push(r, scrape(0, 1, false)).Outcome == frame.Stored })
}

// onlyOnce is a peer of another version, without streams.
type onlyOnce struct {
	ingesterpb.UnimplementedIngesterWriteServer
	w *IngesterWrite
}

func (o onlyOnce) PushOnce(ctx context.Context, in *ingesterpb.Frames) (*ingesterpb.Results, error) {
	return o.w.PushOnce(ctx, in)
}

func TestPeerWithoutStreamsGetsSelfContainedFrames(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{}
	real := startIngester(t, "", srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	old := grpc.NewServer() // stock codec
	ingesterpb.RegisterIngesterWriteServer(old, onlyOnce{w: real.write})
	go func() { _ = old.Serve(l) }()
	defer old.Stop()
	pool, _ := startReplicas(t, 10*time.Second)
	r := replicaFor(t, pool, l.Addr().String())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if res := push(r, scrape(0, 5, true)); res.Outcome != frame.Stored {
				t.Errorf("defined: %+v, want stored", res)
			}
			if res := push(r, scrape(0, 5, false)); res.Outcome != frame.UnknownRefs || len(res.Unknown) != 5 {
				t.Errorf("not defined: %+v, want 5 unknown references", res)
			}
		})
	}
	wg.Wait()
	if got := srv.samples.Load(); got != 100 {
		t.Errorf("%d samples arrived, want 100", got)
	}
}

func TestManyPushersShareAStream(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, 30*time.Second)
	r := replicaFor(t, pool, ing.addr)
	const pushers, frames = 8, 200
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			if res := push(r, scrape(p*1000, 50, true)); res.Outcome != frame.Stored {
				t.Errorf("define: %+v", res)
				return
			}
			var done sync.WaitGroup
			f := scrape(p*1000, 50, false)
			for range frames {
				done.Add(1)
				r.Push(f, func(res frame.Result) {
					if res.Outcome != frame.Stored {
						t.Errorf("%+v, want stored", res)
					}
					done.Done()
				})
			}
			done.Wait()
		})
	}
	wg.Wait()
	if got, want := srv.samples.Load(), int64(pushers*50*(frames+1)); got != want {
		t.Errorf("%d samples arrived, want %d", got, want)
	}
	if srv.opened.Load() != 1 {
		t.Errorf("%d streams were opened, want 1", srv.opened.Load())
	}
}

func TestClosedReplicaFailsWhatWaitsAndRefuses(t *testing.T) {
	noLeaks(t)
	srv := &memoryServer{before: func(ctx context.Context, _ *frame.Frame) { <-ctx.Done() }}
	ing := startIngester(t, "", srv)
	pool, _ := startReplicas(t, time.Minute)
	r := replicaFor(t, pool, ing.addr)
	results := make(chan frame.Result, 1)
	r.Push(scrape(0, 1, true), func(res frame.Result) { results <- res })
	if err := pool.pool.close(); err != nil {
		t.Fatal(err)
	}
	if res := <-results; res.Kind != errs.Unavailable {
		t.Errorf("waiting frame: %+v, want Unavailable", res)
	}
	if res := push(r, scrape(0, 1, true)); res.Kind != errs.Unavailable {
		t.Errorf("frame after close: %+v, want Unavailable", res)
	}
	if _, err := pool.For("127.0.0.1:1"); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("For after close: %v, want Unavailable", err)
	}
}

func TestLocalReplicaHandsFramesOverByPointer(t *testing.T) {
	noLeaks(t)
	var seen *frame.Frame
	srv := &memoryServer{before: func(_ context.Context, f *frame.Frame) { seen = f }}
	pool, _ := startReplicas(t, time.Second)
	if err := pool.Register("here:1", srv); err != nil {
		t.Fatal(err)
	}
	r := replicaFor(t, pool, "here:1")
	f := scrape(0, 3, true)
	if res := push(r, f); res.Outcome != frame.Stored || seen != f || r.Incarnation() == 0 {
		t.Fatalf("got %+v, same frame %v, incarnation %d", res, seen == f, r.Incarnation())
	}
	if res := push(r, scrape(0, 3, false)); res.Outcome != frame.Stored {
		t.Fatalf("bindings were forgotten: %+v", res)
	}
	if err := pool.Register("here:1", srv); err == nil {
		t.Fatal("an address was registered twice")
	}
}

// A hanging disk of this machine must neither hold up who pushes nor gather frames without bound,
// and a panic must not end the process.
func TestLocalReplicaNeverBlocksAndIsBounded(t *testing.T) {
	noLeaks(t)
	hang := make(chan struct{})
	srv := &memoryServer{before: func(_ context.Context, f *frame.Frame) {
		if f.Tenant == "panic" {
			panic("on purpose")
		}
		<-hang
	}}
	pool, reg := startReplicas(t, time.Second)
	if err := pool.Register("here:1", srv); err != nil {
		t.Fatal(err)
	}
	r := replicaFor(t, pool, "here:1")
	f := scrape(0, 200_000, true)
	results := make(chan frame.Result, 2)
	r.Push(f, func(res frame.Result) { results <- res }) // returns though nothing is stored
	if res := push(r, scrape(0, 3, true)); res.Outcome != frame.Failed || res.Kind != errs.Unavailable {
		t.Fatalf("frame beyond the bound: %+v", res)
	}
	if n := counter(t, reg, "amphora_ingester_client_frames_refused_total"); n != 1 {
		t.Errorf("%v frames counted as refused, want 1", n)
	}
	close(hang)
	if res := <-results; res.Outcome != frame.Stored {
		t.Fatalf("frame that waited: %+v", res)
	}
	if res := push(r, &frame.Frame{Tenant: "panic"}); res.Outcome != frame.Failed || res.Kind != errs.Internal {
		t.Fatalf("frame that panics: %+v", res)
	}
}

func TestIncarnationsAreNeverRepeatedOrZero(t *testing.T) {
	ids := new(Incarnations)
	ids.last.Store(1<<32 - 3)
	seen := make(map[uint32]bool)
	for range 5 {
		n := ids.Next()
		if n == 0 || seen[n] {
			t.Fatalf("incarnation %d after %v", n, seen)
		}
		seen[n] = true
	}
}

func TestInstancesOutOfTheRingAreForgotten(t *testing.T) {
	noLeaks(t)
	pool, _ := startReplicas(t, time.Second)
	if err := pool.Register("local:1", &memoryServer{}); err != nil {
		t.Fatal(err)
	}
	a, b := replicaFor(t, pool, "127.0.0.1:1"), replicaFor(t, pool, "127.0.0.1:2")
	inRing := func(addr string) bool { return addr == "127.0.0.1:1" }
	start := time.Unix(1_700_000_000, 0)
	for _, after := range []time.Duration{0, forgetAfter - 1, forgetAfter} {
		if replicaFor(t, pool, "127.0.0.1:2") != b {
			t.Fatalf("forgotten before %s", after)
		}
		if err := pool.pool.sweep(inRing, start.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	if replicaFor(t, pool, "127.0.0.1:1") != a || replicaFor(t, pool, "127.0.0.1:2") == b {
		t.Error("want the one out of the ring replaced and the other kept")
	}
	if res := push(b, scrape(0, 1, true)); res.Kind != errs.Unavailable {
		t.Errorf("forgotten replica: %+v, want Unavailable", res)
	}
	if res := push(replicaFor(t, pool, "local:1"), scrape(0, 1, true)); res.Outcome != frame.Stored {
		t.Errorf("local replica: %+v", res)
	}
}
