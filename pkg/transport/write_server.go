package transport

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	// versionHeader tells a client that its stream was accepted and which encoding it may use.
	versionHeader  = "amphora-frame-version"
	currentVersion = "1" // frame.Version
	// streamBytes bounds the frames of one stream that are decoded, stored or not yet answered.
	// Beyond it nothing is read, and HTTP/2 flow control holds the sender.
	streamBytes = 16 << 20
	// streamWorkers bounds the frames of one stream that are stored at the same time. It is far
	// above the number of CPUs because a frame spends its time waiting for the log's next sync.
	streamWorkers = 128
	// maxKeptSamples is the largest frame whose memory is used again.
	maxKeptSamples = 1 << 18
)

// IngesterWrite receives frames from other processes and hands them to a frame.Server. It
// implements ingesterpb.IngesterWriteServer. The gRPC server must be made by NewServer, or with
// ServerOptions, for its codec.
type IngesterWrite struct {
	ingesterpb.UnimplementedIngesterWriteServer
	frames  frame.Server
	guard   guard
	metrics *writeServerMetrics
	pool    mem.BufferPool
	scratch *sync.Pool // of *scratch
	labels  *activity.Tracker

	mu       sync.Mutex // guards what follows
	closing  bool
	draining chan struct{} // closed when closing is set
	streams  sync.WaitGroup
}

// scratch is what storing one frame needs.
type scratch struct {
	decoder frame.Decoder
	frame   frame.Frame
}

// NewIngesterWrite returns the gRPC service of frames. Drain it before the gRPC server stops.
func NewIngesterWrite(frames frame.Server, reg prometheus.Registerer, log *slog.Logger) *IngesterWrite {
	m := newWriteServerMetrics(reg)
	return &IngesterWrite{
		frames: frames, metrics: m, guard: guard{log, m.panics}, pool: newBufferPool(),
		scratch:  &sync.Pool{New: func() any { return new(scratch) }},
		draining: make(chan struct{}),
	}
}

// LabelBy has profiles tell for which tenants frames are stored. It is called before the first frame.
func (s *IngesterWrite) LabelBy(t *activity.Tracker) { s.labels = t }

// Drain ends all streams after the frames that were received have been answered, and refuses new
// ones. It returns early when ctx ends.
func (s *IngesterWrite) Drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.draining)
	}
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.streams.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enter counts a call unless the server is being drained.
func (s *IngesterWrite) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errShuttingDown()
	}
	s.streams.Add(1)
	return nil
}

func errShuttingDown() error { return errs.New(errs.Unavailable, "ingester is shutting down") }

// Push implements ingesterpb.IngesterWriteServer.
func (s *IngesterWrite) Push(g grpc.BidiStreamingServer[ingesterpb.Frames, ingesterpb.Results]) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Done()
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	if err := g.SendHeader(metadata.Pairs(versionHeader, currentVersion)); err != nil {
		return err
	}
	stream := s.frames.OpenStream()
	defer stream.Close()
	return newInbound(s, g, stream).run()
}

// PushOnce implements ingesterpb.IngesterWriteServer. The frames of one call share bindings and
// are stored in their order.
func (s *IngesterWrite) PushOnce(ctx context.Context, in *ingesterpb.Frames) (*ingesterpb.Results, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.streams.Done()
	stream := s.frames.OpenStream()
	defer stream.Close()
	out := &ingesterpb.Results{}
	for message := in.GetData(); len(message) > 0; {
		rec, rest, err := frame.Next(message)
		if err != nil {
			return nil, err
		}
		message = rest
		s.metrics.receivedBytes.Add(float64(len(rec.Body)))
		result := s.store(ctx, stream, rec, func() {})
		out.Data = frame.AppendResult(out.Data, rec.Sequence, &result)
	}
	return out, nil
}

// store decodes and stores one frame. decoded is called when rec's memory is not needed any more.
func (s *IngesterWrite) store(ctx context.Context, stream frame.Stream, rec frame.Record, decoded func()) frame.Result {
	s.metrics.frames.Inc()
	x := s.scratch.Get().(*scratch)
	err := x.decoder.DecodeFrame(rec, &x.frame)
	decoded()
	if err == nil {
		_, err = tenant.Parse(x.frame.Tenant)
	}
	if err != nil {
		s.metrics.invalid.Inc()
		s.scratch.Put(x)
		return frame.FailedWith(err)
	}
	result, err := s.push(ctx, stream, &x.frame)
	if err != nil {
		return frame.FailedWith(err) // What panicked may still hold x.
	}
	if cap(x.frame.Refs) <= maxKeptSamples && cap(x.frame.Defs) <= maxKeptSamples {
		x.frame.Reset()
		s.scratch.Put(x)
	}
	return result
}

func (s *IngesterWrite) push(ctx context.Context, stream frame.Stream, f *frame.Frame) (result frame.Result, err error) {
	defer s.guard.recovered("storing a frame", &err)
	defer s.labels.Label(f.Tenant)()
	return stream.Push(ctx, f), nil
}
