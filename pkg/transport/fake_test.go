package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// memoryServer is a frame.Server that keeps bindings and counts samples.
type memoryServer struct {
	before  func(context.Context, *frame.Frame) // runs before a frame is stored
	samples atomic.Int64
	opened  atomic.Int64
	closed  atomic.Int64
}

func (s *memoryServer) OpenStream() frame.Stream {
	s.opened.Add(1)
	return &memoryStream{server: s, bound: make(map[frame.Ref]labels.Labels)}
}

type memoryStream struct {
	server *memoryServer
	mu     sync.Mutex
	bound  map[frame.Ref]labels.Labels
}

func (s *memoryStream) Push(ctx context.Context, f *frame.Frame) frame.Result {
	if s.server.before != nil {
		s.server.before(ctx, f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range f.Defs {
		s.bound[d.Ref] = d.Labels
	}
	var unknown []frame.Ref
	for _, ref := range f.Refs {
		if _, ok := s.bound[ref]; !ok {
			unknown = append(unknown, ref)
		}
	}
	if len(unknown) > 0 {
		return frame.Result{Outcome: frame.UnknownRefs, Unknown: unknown}
	}
	s.server.samples.Add(int64(f.Samples()))
	return frame.Result{Outcome: frame.Stored}
}

func (s *memoryStream) Close() { s.server.closed.Add(1) }

// ingester is a gRPC server of frames that a test can kill.
type ingester struct {
	addr  string
	grpc  *grpc.Server
	write *IngesterWrite
}

func (i *ingester) kill() { i.grpc.Stop() }

// startIngester serves srv at addr, or at a free address.
func startIngester(tb testing.TB, addr string, srv frame.Server) *ingester {
	tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	eventually(tb, "listen", func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	g := guard{quiet(), prometheus.NewCounter(prometheus.CounterOpts{Name: "panics"})}
	i := &ingester{addr: l.Addr().String(), write: NewIngesterWrite(srv, prometheus.NewRegistry(), quiet())}
	i.grpc = grpc.NewServer(append(serverOptions(), grpc.UnaryInterceptor(g.unaryServer), grpc.StreamInterceptor(g.streamServer))...)
	ingesterpb.RegisterIngesterWriteServer(i.grpc, i.write)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = i.grpc.Serve(l)
	}()
	tb.Cleanup(func() {
		i.grpc.Stop()
		<-served
	})
	return i
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// startReplicas returns a running pool with its registry.
func startReplicas(tb testing.TB, pushTimeout time.Duration) (*Replicas, *prometheus.Registry) {
	tb.Helper()
	reg := prometheus.NewRegistry()
	r, err := NewReplicas(ClientConfig{}, ClientDeps{PushTimeout: pushTimeout, Registerer: reg, Log: quiet()})
	if err != nil {
		tb.Fatal(err)
	}
	startService(tb, r)
	return r, reg
}

func startService(tb testing.TB, s services.Service) {
	tb.Helper()
	if err := services.StartAndAwaitRunning(context.Background(), s); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := services.StopAndAwaitTerminated(context.Background(), s); err != nil {
			tb.Errorf("stop: %v", err)
		}
	})
}

func replicaFor(tb testing.TB, r *Replicas, addr string) frame.Replica {
	tb.Helper()
	replica, err := r.For(addr)
	if err != nil {
		tb.Fatal(err)
	}
	return replica
}

// push waits for the result of f.
func push(r frame.Replica, f *frame.Frame) frame.Result {
	c := make(chan frame.Result, 1)
	r.Push(f, func(res frame.Result) { c <- res })
	return <-c
}

// scrape is a frame of n series of which the references start at first.
func scrape(first, n int, define bool) *frame.Frame {
	f := &frame.Frame{Tenant: "team-a"}
	for i := range n {
		ref := frame.MakeRef(uint32(first+i), 0)
		f.Refs = append(f.Refs, ref)
		f.Times = append(f.Times, 1_700_000_000_000)
		f.Values = append(f.Values, float64(i))
		if define {
			f.Defs = append(f.Defs, frame.Def{Ref: ref, Labels: labels.FromStrings("__name__", "m", "i", string(rune('a'+i%26)))})
		}
	}
	return f
}

// eventually polls until ok, for at most ten seconds.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: not within 10 s", what)
		}
	}
}

// noLeaks checks at the end of the test, after what it started was stopped, that no goroutines
// are left over. It must be called first.
func noLeaks(tb testing.TB) {
	tb.Helper()
	before := runtime.NumGoroutine()
	tb.Cleanup(func() {
		eventually(tb, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// counter reads a metric; labels are joined over.
func counter(tb testing.TB, reg *prometheus.Registry, name string) float64 {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

var errTest = errors.New("test")
