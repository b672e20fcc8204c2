package transport

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/grafana/dskit/services"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Schedulers is how a frontend reaches the query-schedulers, in turns. It is a service: stopping it
// closes all connections. It implements work.Runner.
type Schedulers struct {
	services.Service
	addresses func() []string
	pool      *pool[client[querypb.SchedulerClient]]
	next      atomic.Uint64
}

// NewSchedulers returns a client of the schedulers that addresses names at any time.
func NewSchedulers(cfg ClientConfig, addresses func() []string, deps ClientDeps) (*Schedulers, error) {
	duration := newSchedulerClientDuration(deps.Registerer)
	p, err := schedulerPool(cfg, peers{"query-scheduler", deps.Registerer}, timedStreams(duration))
	if err != nil {
		return nil, err
	}
	known := func(addr string) bool {
		for _, a := range addresses() {
			if a == addr {
				return true
			}
		}
		return false
	}
	return &Schedulers{Service: p.service(known), addresses: addresses, pool: p}, nil
}

// schedulerPool connects to a scheduler when it is called first.
func schedulerPool(cfg ClientConfig, p peers, also ...grpc.StreamClientInterceptor) (*pool[client[querypb.SchedulerClient]], error) {
	return clientsOf(cfg, p, querypb.NewSchedulerClient, grpc.WithChainStreamInterceptor(append([]grpc.StreamClientInterceptor{streamClient}, also...)...))
}

// Run implements work.Runner. One scheduler after the other is asked while none has begun to answer.
func (s *Schedulers) Run(ctx context.Context, w *work.Work) error {
	addrs := s.addresses()
	if len(addrs) == 0 {
		return errs.New(errs.Unavailable, "no query-scheduler is known")
	}
	first := s.next.Add(1)
	var err error
	for i := range addrs {
		err = s.runAt(ctx, addrs[(first+uint64(i))%uint64(len(addrs))], w)
		if err == nil || errs.KindOf(err) != errs.Unavailable || ctx.Err() != nil || !w.Again() {
			return err
		}
	}
	return err
}

func (s *Schedulers) runAt(ctx context.Context, addr string, w *work.Work) error {
	c, err := s.pool.get(addr)
	if err != nil {
		return errs.New(errs.Unavailable, "reach query-scheduler %s: %w", addr, err)
	}
	msg, err := w.ToWire()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.calls.Run(ctx, msg)
	if err != nil {
		return err
	}
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return w.Delivered()
		}
		if err != nil {
			return err
		}
		if err := w.Deliver(p); err != nil {
			return err
		}
	}
}
