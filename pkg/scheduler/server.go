package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/grafana/dskit/user"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Server is the Scheduler for other processes. It implements querypb.SchedulerServer.
type Server struct {
	querypb.UnimplementedSchedulerServer
	s        *Scheduler
	messages sync.Pool // of *work.Relayed
}

// keptBytes is the memory up to which a message is used again: somewhat more than parts of answers have.
const keptBytes = 1 << 20

// NewServer returns the gRPC service of s.
func NewServer(s *Scheduler) *Server {
	return &Server{s: s, messages: sync.Pool{New: func() any { return new(work.Relayed) }}}
}

// Run implements querypb.SchedulerServer for frontends.
func (v *Server) Run(in *querypb.Work, stream grpc.ServerStreamingServer[querypb.Part]) error {
	v.s.metrics.frontendStreams.Inc()
	defer v.s.metrics.frontendStreams.Dec()
	w, err := work.FromWire(stream.Context(), in, stream.Send)
	if err != nil {
		return err
	}
	// Nothing in an answer is for schedulers to know.
	w.Encoded = func(b []byte) error { return stream.SendMsg(work.EncodedPart(b)) }
	if err := v.s.Run(stream.Context(), w); err != nil || w.Rest == nil {
		return err
	}
	defer v.free(w.Rest)
	return w.Encoded(w.Rest.Part)
}

// free keeps the memory of a message for others.
func (v *Server) free(m *work.Relayed) {
	if m.Room() <= keptBytes {
		v.messages.Put(m)
	}
}

// Pull implements querypb.SchedulerServer for one worker of a querier. A worker that is no longer
// wanted learns that from the end of its stream, and opens another one.
func (v *Server) Pull(stream grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	p := &puller{v: v, stream: stream, ended: make(chan struct{})}
	p.place = waiter{querier: hello.Querier, remote: p}
	go p.receive()
	select {
	case <-p.ended:
	case <-stream.Context().Done():
	case <-v.s.idle:
		p.retire()
		select {
		case <-p.ended:
		case <-stream.Context().Done():
		}
	}
	p.end(errLeft()) // if nothing else did
	p.mu.Lock()      // nobody sends any more
	defer p.mu.Unlock()
	return p.why
}

func errStopped() error { return errs.New(errs.Unavailable, "the query-scheduler has stopped") }
func errLeft() error    { return errs.New(errs.Canceled, "the querier has gone") }

// puller is one worker of a querier in another process. Who brings work sends the assignment, and what receives the
// worker's messages does what is to be done with them: to wake a goroutine between them costs more than the rest of
// what a small query takes here. The one that serves the stream waits for its end alone.
type puller struct {
	v      *Server
	stream grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment]
	place  waiter
	ended  chan struct{} // closed with over

	mu   sync.Mutex // guards what follows; held while something is sent
	task *Task      // that the worker has
	over bool       // the stream ends
	why  error
}

// end ends the stream.
func (p *puller) end(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(why)
}

func (p *puller) endLocked(why error) {
	if !p.over {
		p.over, p.why = true, why
		close(p.ended)
	}
}

// retire ends the stream of a worker without work.
func (p *puller) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.task == nil {
		p.endLocked(errStopped())
	}
}

// abandon ends the stream if the worker has t, which nobody wants any more. What is yet to be sent is not.
func (p *puller) abandon(t *Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.task == t {
		p.endLocked(errs.New(errs.Canceled, "the query has ended"))
	}
}

// await waits for work, without keeping the goroutine.
func (p *puller) await() {
	if t := p.v.s.join(p); t != nil {
		p.give(t)
		return
	}
	select {
	case <-p.v.s.idle:
		p.end(errStopped())
	default:
	}
	p.mu.Lock()
	over := p.over
	p.mu.Unlock()
	if over { // perhaps before there was anything to take back
		p.v.s.unjoin(p)
	}
}

// give has the worker do t.
func (p *puller) give(t *Task) {
	a, err := assignment(t)
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		t.Return()
		return
	}
	if err == nil {
		err = context.Cause(t.Context)
	}
	if err != nil {
		p.mu.Unlock()
		t.Finish(err)
		p.await()
		return
	}
	p.task = t
	if err = p.stream.Send(a); err != nil {
		p.task = nil
		p.endLocked(err)
	}
	p.mu.Unlock()
	if err != nil {
		t.Return()
	}
}

// receive takes what the worker says until the stream ends.
func (p *puller) receive() {
	p.await()
	for more := true; more; {
		m := p.v.messages.Get().(*work.Relayed) //nolint:forcetypeassert // It holds nothing else.
		if err := p.stream.RecvMsg(m); err != nil {
			break
		}
		more = p.take(m)
	}
	p.end(errLeft()) // a worker that left while it waited must not be given work
	if t := p.free(); t != nil {
		t.Return()
		return
	}
	p.v.s.unjoin(p)
}

// free takes the task from the worker.
func (p *puller) free() *Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.task
	p.task = nil
	return t
}

// take takes one message. It says whether there may be another one.
func (p *puller) take(m *work.Relayed) bool {
	p.mu.Lock()
	t := p.task
	p.mu.Unlock()
	if t == nil {
		p.end(errs.New(errs.Invalid, "a worker answered although it had no work"))
		return false
	}
	if m.Part != nil && m.Done && m.Error == nil && t.Work.Encoded != nil {
		t.Work.Rest = m
		p.finish(t, nil)
		return true
	}
	if m.Part != nil {
		if err := t.Work.DeliverEncoded(m.Part); err != nil {
			p.end(errs.New(errs.Canceled, "the answer is not wanted any more"))
			p.free()
			t.Finish(err)
			return false
		}
	}
	done, failure := m.Done, m.Error
	p.v.free(m)
	if done {
		p.finish(t, outcome(t, failure))
	}
	return true
}

// finish ends t, after which the worker waits for the next.
func (p *puller) finish(t *Task, err error) {
	p.free()
	t.Finish(err)
	p.await()
}

// outcome is what became of a task whose worker is done.
func outcome(t *Task, f *querypb.Failure) error {
	if f == nil {
		return t.Work.Delivered()
	}
	kind := errs.Kind(f.Kind)
	if f.Kind > 255 || !kind.Valid() {
		kind = errs.Internal
	}
	return errs.New(kind, "%s", f.Text)
}

func assignment(t *Task) (*querypb.Assignment, error) {
	w, err := t.Work.ToWire()
	if err != nil {
		return nil, err
	}
	org, err := user.ExtractOrgID(t.Context)
	if err != nil {
		return nil, errs.New(errs.Unauthenticated, "no org id")
	}
	a := &querypb.Assignment{Work: w, Tenants: org}
	if end, ok := t.Context.Deadline(); ok {
		a.Timeout = max(1, time.Until(end).Milliseconds())
	}
	return a, nil
}
