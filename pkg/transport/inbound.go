package transport

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// inbound is the receiving end of one stream of frames: a reader, up to streamWorkers workers
// that start as frames arrive, and a sender of results.
type inbound struct {
	server *IngesterWrite
	grpc   grpc.ServerStream
	stream frame.Stream
	budget *semaphore.Weighted // of streamBytes; a frame holds its share until it is answered
	jobs   chan job
	ready  chan struct{} // has a token when results may be waiting

	workerMu sync.Mutex // guards what follows, up to the WaitGroup's Add
	stopped  bool
	stop     chan struct{} // closed when stopped is set; no frame is started afterwards
	count    int
	workers  sync.WaitGroup

	resultMu sync.Mutex // guards what follows
	results  []byte     // records
	answered int64      // the budget that sending results gives back
}

// job is one received frame. message holds its record's memory.
type job struct {
	rec     frame.Record
	message mem.Buffer
	cost    int64
}

func newInbound(s *IngesterWrite, g grpc.ServerStream, stream frame.Stream) *inbound {
	return &inbound{server: s, grpc: g, stream: stream, budget: semaphore.NewWeighted(streamBytes),
		jobs: make(chan job), ready: make(chan struct{}, 1), stop: make(chan struct{})}
}

// run serves the stream until the client ends it, it breaks, or the server is drained; frames
// that were started are answered first. The reader may outlive run until gRPC, once run's caller
// has returned, ends its wait for the next message.
func (x *inbound) run() error {
	ctx := x.grpc.Context()
	read := make(chan error, 1)
	go func() { read <- x.read(ctx) }()
	sent := make(chan error, 1)
	flush := make(chan struct{})
	go func() { sent <- x.send(flush) }()

	var err error
	select {
	case err = <-read:
	case <-x.server.draining:
		err = errShuttingDown()
	case sendErr := <-sent:
		sent <- sendErr // It is joined below.
	}
	x.workerMu.Lock()
	x.stopped = true
	close(x.stop)
	x.workerMu.Unlock()
	x.workers.Wait()
	close(flush)
	return errors.Join(err, <-sent)
}

// read takes messages off the stream and starts their frames.
func (x *inbound) read(ctx context.Context) error {
	for {
		var in incoming
		if err := x.grpc.RecvMsg(&in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		err := x.start(ctx, in)
		in.buf.Free()
		if err != nil {
			return err
		}
	}
}

// start starts the frames of one message.
func (x *inbound) start(ctx context.Context, in incoming) error {
	x.server.metrics.receivedBytes.Add(float64(len(in.data)))
	for message := in.data; len(message) > 0; {
		rec, rest, err := frame.Next(message)
		if err != nil {
			return err
		}
		message = rest
		cost := min(int64(len(rec.Body)+frameOverheadBytes), streamBytes)
		if err := x.budget.Acquire(ctx, cost); err != nil {
			return errs.Wrap(errs.KindOf(err), err)
		}
		in.buf.Ref()
		if !x.dispatch(job{rec, in.buf, cost}) {
			in.buf.Free()
			return nil
		}
	}
	return nil
}

// dispatch gives j to a worker. It reports false when no frame is started any more.
func (x *inbound) dispatch(j job) bool {
	select {
	case x.jobs <- j:
		return true
	default:
	}
	if x.spawn(j) {
		return true
	}
	select {
	case x.jobs <- j:
		return true
	case <-x.stop:
		return false
	}
}

// spawn starts a worker with j, unless there are enough or the stream has stopped.
func (x *inbound) spawn(j job) bool {
	x.workerMu.Lock()
	defer x.workerMu.Unlock()
	if x.stopped || x.count == streamWorkers {
		return false
	}
	x.count++
	x.workers.Go(func() { x.work(j) })
	return true
}

func (x *inbound) work(j job) {
	ctx := x.grpc.Context()
	for {
		result := x.server.store(ctx, x.stream, j.rec, j.message.Free)
		x.resultMu.Lock()
		x.results = frame.AppendResult(x.results, j.rec.Sequence, &result)
		x.answered += j.cost
		x.resultMu.Unlock()
		select {
		case x.ready <- struct{}{}:
		default:
		}
		select {
		case j = <-x.jobs:
		case <-x.stop:
			return
		}
	}
}

// send sends results, joining those that are there, until flush is closed and none is left.
func (x *inbound) send(flush <-chan struct{}) error {
	for last := false; ; {
		x.resultMu.Lock()
		size, answered := len(x.results), x.answered
		var buf *[]byte
		if size > 0 {
			buf = x.server.pool.Get(size + maxEnvelopeBytes)
			*buf = append(appendEnvelope((*buf)[:0], size), x.results...)
		}
		x.results, x.answered = x.results[:0], 0
		x.resultMu.Unlock()
		if buf != nil {
			if err := x.grpc.SendMsg(&outgoing{mem.NewBuffer(buf, x.server.pool)}); err != nil {
				return err
			}
			x.budget.Release(answered)
			continue
		}
		if last {
			return nil
		}
		select {
		case <-x.ready:
		case <-flush:
			last = true
		}
	}
}
