package transport

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// localReplica hands frames to a server in this process by pointer, without sockets or encoding. It
// implements frame.Replica.
type localReplica struct {
	stream      frame.Stream
	incarnation uint32
	pushTimeout time.Duration
	metrics     *replicaMetrics
	guard       guard
	inflight    atomic.Int64 // estimated bytes of the frames under way
}

// newLocalReplica opens a stream of srv. s.pushTimeout bounds the context under which a frame is
// stored.
func newLocalReplica(srv frame.Server, s shared) *localReplica {
	return &localReplica{stream: srv.OpenStream(), incarnation: s.ids.Next(), pushTimeout: s.pushTimeout,
		metrics: s.metrics, guard: guard{s.log, s.metrics.panics}}
}

// Push implements frame.Replica. The frame is stored by a goroutine of its own, since storing waits
// for the disk of this machine: one that hangs must not hold up the frames for other ingesters.
func (r *localReplica) Push(f *frame.Frame, done func(frame.Result)) {
	cost := int64(frameOverheadBytes + 20*len(f.Refs) + frameOverheadBytes*(len(f.Defs)+len(f.Histograms)+len(f.Exemplars)+len(f.Metadata)))
	if before := r.inflight.Add(cost) - cost; before >= replicaBytes {
		r.inflight.Add(-cost)
		r.metrics.refusedSlow.Inc()
		done(frame.FailedWith(errs.New(errs.Unavailable, "the ingester of this process is slow: %d bytes wait for it, at most %d may", before, replicaBytes)))
		return
	}
	go func() {
		result, err := r.store(f)
		if err != nil {
			result = frame.FailedWith(err)
		}
		r.inflight.Add(-cost)
		done(result)
	}()
}

func (r *localReplica) store(f *frame.Frame) (result frame.Result, err error) {
	defer r.guard.recovered("storing a frame", &err)
	ctx, cancel := context.WithTimeout(context.Background(), r.pushTimeout)
	defer cancel()
	return r.stream.Push(ctx, f), nil
}

// Incarnation implements frame.Replica.
func (r *localReplica) Incarnation() uint32 { return r.incarnation }

// Close forgets the bindings. No Push may be under way.
func (r *localReplica) Close() error {
	r.stream.Close()
	return nil
}
