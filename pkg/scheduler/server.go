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

// received is one message of a worker, or why there are no more.
type received struct {
	msg *work.Relayed
	err error
}

// Pull implements querypb.SchedulerServer for one worker of a querier. A worker that is no longer
// wanted learns that from the end of its stream, and opens another one.
func (v *Server) Pull(stream grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	messages := make(chan received)
	go func() {
		for {
			m := v.messages.Get().(*work.Relayed) //nolint:forcetypeassert // It holds nothing else.
			err := stream.RecvMsg(m)
			if err != nil {
				// A worker that left while it waited must not be given work.
				cancel(errs.New(errs.Canceled, "the querier has gone"))
			}
			select {
			case messages <- received{m, err}:
				if err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		t, err := v.s.Next(ctx, hello.Querier)
		if err != nil {
			return err
		}
		if err := v.serve(ctx, t, stream, messages); err != nil {
			return err
		}
	}
}

// serve has the worker do t. An error ends the stream.
func (v *Server) serve(ctx context.Context, t *Task, stream grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment], messages <-chan received) error {
	a, err := assignment(t)
	if err != nil {
		t.Finish(err)
		return nil
	}
	if err := stream.Send(a); err != nil {
		t.Return()
		return err
	}
	for {
		var r received
		select {
		case r = <-messages:
		case <-t.Context.Done():
			t.Finish(context.Cause(t.Context))
			return errs.New(errs.Canceled, "the query has ended")
		case <-ctx.Done():
			t.Return()
			return context.Cause(ctx)
		}
		if r.err != nil {
			t.Return()
			return r.err
		}
		if r.msg.Part != nil && r.msg.Done && r.msg.Error == nil && t.Work.Encoded != nil {
			t.Work.Rest = r.msg
			t.Finish(nil)
			return nil
		}
		if r.msg.Part != nil {
			if err := t.Work.DeliverEncoded(r.msg.Part); err != nil {
				t.Finish(err)
				return errs.New(errs.Canceled, "the answer is not wanted any more")
			}
		}
		done, failure := r.msg.Done, r.msg.Error
		v.free(r.msg)
		if done {
			t.Finish(outcome(t, failure))
			return nil
		}
	}
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
