package transport

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/backoff"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// batchBytes is where the sender closes a message: with what is queued up to there, so that
	// coalescing never delays a frame.
	batchBytes = 256 << 10
	// maxKeptRecordBytes is the largest buffer that goes back to the pool of encoders.
	maxKeptRecordBytes = 4 << 20
	// connectTimeout bounds an attempt to open a stream.
	connectTimeout = 2 * time.Second
	// steadyAfter is how long a stream must have lived for its loss to be followed by an attempt
	// at once; one that ends sooner is treated like one that could not be opened.
	steadyAfter = time.Second
)

// linkState is what a remote replica knows of its ingester.
type linkState uint8

const (
	connecting linkState = iota // frames are queued for the stream that is being opened
	up                          // frames flow
	unary                       // the peer has no stream; frames go by single calls
	down                        // the last attempt did not succeed: frames are refused
	closed
)

// shared is what the remote replicas of a process have in common.
type shared struct {
	dial        func(addr string) (*grpc.ClientConn, error)
	pool        mem.BufferPool
	encoders    *sync.Pool // of *encoded
	ids         *Incarnations
	metrics     *replicaMetrics
	log         *slog.Logger
	pushTimeout time.Duration
	maxBytes    int // in flight, for each replica
	memory      *memory.Account
}

// remoteReplica is the sending end of one ingester's stream. It implements frame.Replica.
type remoteReplica struct {
	shared
	addr        string
	incarnation atomic.Uint32
	wake        chan struct{} // has a token when frames may be queued
	cancel      context.CancelFunc
	stopped     chan struct{} // closed when run has returned
	timer       *time.Timer   // calls expire; one for all frames

	mu     sync.Mutex // guards what follows
	state  linkState
	cause  error // why state is down
	window window
	armed  bool // timer will call expire
}

// newRemoteReplica returns a replica that connects when the first frame is pushed. Close it.
func newRemoteReplica(addr string, s shared) *remoteReplica {
	ctx, cancel := context.WithCancel(context.Background())
	r := &remoteReplica{shared: s, addr: addr, wake: make(chan struct{}, 1), cancel: cancel, stopped: make(chan struct{})}
	r.incarnation.Store(s.ids.Next())
	r.timer = time.AfterFunc(time.Hour, r.expire)
	r.timer.Stop()
	go r.run(ctx)
	return r
}

// Incarnation implements frame.Replica.
func (r *remoteReplica) Incarnation() uint32 { return r.incarnation.Load() }

// Push implements frame.Replica. The frame is encoded before Push returns.
func (r *remoteReplica) Push(f *frame.Frame, done func(frame.Result)) {
	r.mu.Lock()
	err, state := r.refuse(), r.state
	r.mu.Unlock()
	if err != nil {
		done(frame.FailedWith(err))
		return
	}
	if state == unary {
		// A single call starts without bindings, so what f does not define is not known.
		if unknown := undefined(f); len(unknown) > 0 {
			done(frame.Result{Outcome: frame.UnknownRefs, Unknown: unknown})
			return
		}
	}
	enc := r.encoders.Get().(*encoded)
	if enc.record, err = enc.encoder.AppendFrame(enc.record[:0], 0, f); err != nil {
		r.release(enc)
		done(frame.FailedWith(err))
		return
	}
	cost := len(enc.record) + frameOverheadBytes
	if err := r.memory.Reserve(int64(cost)); err != nil {
		r.release(enc)
		done(frame.FailedWith(err))
		return
	}
	r.mu.Lock()
	if err := r.refuse(); err != nil {
		r.mu.Unlock()
		r.memory.Release(int64(cost))
		r.release(enc)
		done(frame.FailedWith(err))
		return
	}
	seq := r.window.add(pending{done: done, frame: enc, deadline: time.Now().Add(r.pushTimeout), cost: cost})
	frame.SetSequence(enc.record, seq)
	if !r.armed {
		r.armed = true
		r.timer.Reset(r.pushTimeout)
	}
	r.mu.Unlock()
	r.metrics.inflightBytes.Add(float64(cost))
	r.signal()
}

// refuse says why no frame is taken now, nil if one is. The caller holds mu.
func (r *remoteReplica) refuse() error {
	switch {
	case r.state == closed:
		return errs.New(errs.Unavailable, "ingester %s: its client is closed", r.addr)
	case r.state == down:
		r.metrics.refusedDown.Inc()
		return errs.New(errs.Unavailable, "ingester %s: %w", r.addr, r.cause)
	case r.window.bytes >= r.maxBytes:
		r.metrics.refusedSlow.Inc()
		return errs.New(errs.Unavailable, "ingester %s is slow: %d bytes wait for it, at most %d may", r.addr, r.window.bytes, r.maxBytes)
	}
	return nil
}

// undefined returns the references that f uses and does not define.
func undefined(f *frame.Frame) []frame.Ref {
	known := make(map[frame.Ref]struct{}, len(f.Defs))
	for i := range f.Defs {
		known[f.Defs[i].Ref] = struct{}{}
	}
	var unknown []frame.Ref
	use := func(ref frame.Ref) {
		if _, ok := known[ref]; !ok {
			known[ref] = struct{}{}
			unknown = append(unknown, ref)
		}
	}
	for _, ref := range f.Refs {
		use(ref)
	}
	for i := range f.Histograms {
		use(f.Histograms[i].Ref)
	}
	for i := range f.Exemplars {
		use(f.Exemplars[i].Ref)
	}
	return unknown
}

func (r *remoteReplica) release(enc *encoded) {
	if cap(enc.record) <= maxKeptRecordBytes {
		r.encoders.Put(enc)
	}
}

// free gives back the cost of a frame that has its result, and the frame unless the sender has it.
func (r *remoteReplica) free(cost int, enc *encoded) {
	r.metrics.inflightBytes.Sub(float64(cost))
	r.memory.Release(int64(cost))
	if enc != nil {
		r.release(enc)
	}
}

func (r *remoteReplica) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// answer is a result on its way to its callback.
type answer struct {
	seq    uint64
	result frame.Result
}

// finish gives results to the frames that still wait for them.
func (r *remoteReplica) finish(answers []answer) {
	for _, a := range answers {
		r.mu.Lock()
		before := r.window.bytes
		done, enc := r.window.finish(a.seq)
		freed := before - r.window.bytes
		r.mu.Unlock()
		if done == nil {
			r.metrics.late.Inc()
			continue
		}
		r.free(freed, enc)
		done(a.result)
	}
}

// expire fails the frames whose time is up and arms the timer for the next.
func (r *remoteReplica) expire() {
	result := frame.FailedWith(errs.New(errs.Timeout, "ingester %s: no answer within %s", r.addr, r.pushTimeout))
	for {
		r.mu.Lock()
		if r.window.empty() {
			r.armed = false
			r.mu.Unlock()
			return
		}
		seq := r.window.base
		if wait := time.Until(r.window.at(seq).deadline); wait > 0 {
			r.timer.Reset(wait)
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.metrics.timeouts.Inc()
		r.finish([]answer{{seq, result}})
	}
}

// setState changes the state unless the replica is closed, and fails all frames that wait when
// cause is not nil. Frames see a new incarnation before they fail.
func (r *remoteReplica) setState(state linkState, cause error) {
	r.mu.Lock()
	if r.state == closed {
		state = closed
	}
	r.state, r.cause = state, cause
	if cause == nil {
		r.mu.Unlock()
		return
	}
	r.incarnation.Store(r.ids.Next())
	from, to := r.window.base, r.window.next
	r.mu.Unlock()

	result := frame.FailedWith(errs.New(errs.Unavailable, "ingester %s: %w", r.addr, cause))
	for seq := from; seq < to; seq++ {
		r.mu.Lock()
		before := r.window.bytes
		done, enc := r.window.finish(seq)
		freed := before - r.window.bytes
		r.mu.Unlock()
		if done == nil {
			continue
		}
		r.free(freed, enc)
		done(result)
	}
}

// Close fails all frames that wait and ends the stream. It must not be called from a callback of
// Push.
func (r *remoteReplica) Close() error {
	r.setState(closed, errs.New(errs.Unavailable, "its client is closed"))
	r.cancel()
	<-r.stopped
	r.timer.Stop()
	return nil
}

// run opens the stream and opens it again when it is lost, until ctx ends.
func (r *remoteReplica) run(ctx context.Context) {
	defer close(r.stopped)
	select {
	case <-r.wake:
		r.signal() // The token is for the sender.
	case <-ctx.Done():
		return
	}
	wait := backoff.New(ctx, backoff.Config{MinBackoff: 100 * time.Millisecond, MaxBackoff: 5 * time.Second})
	said := "" // why it cannot be reached
	for {
		opened, err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if !opened.IsZero() {
			r.metrics.losses.Inc()
			r.log.Warn("stream to ingester lost, its frames failed and it is opened again", "ingester", r.addr, "err", err)
			if time.Since(opened) >= steadyAfter {
				wait.Reset()
				r.setState(connecting, err)
				continue
			}
		} else if why := reason(err); wait.NumRetries() == 0 || why != said {
			said = why
			r.log.Warn("ingester cannot be reached, frames for it are refused until it can", "ingester", r.addr, "err", err)
		}
		r.setState(down, err)
		if wait.Wait(); ctx.Err() != nil {
			return
		}
	}
}

// reason words err without its numbers, such as those of ports, which differ from try to try. An
// ingester that was down and comes back with a certificate that has expired is to be told of again.
func reason(err error) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, fmt.Sprint(err))
}
