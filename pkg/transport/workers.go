package transport

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

const (
	// leastWorkers is how many workers a querier keeps at each scheduler, so that none starves.
	leastWorkers = 4
	// workersEvery is how often the list of schedulers is looked at.
	workersEvery = time.Second
	// workerPause is how long a worker waits before it goes back to a scheduler that it lost.
	workerPause = 500 * time.Millisecond
)

// Workers fetch work from query-schedulers in other processes. It is a service: when it stops, the work
// under way is done first.
type Workers struct {
	services.Service
	querier   string
	most      int
	addresses func() []string
	run       work.Runner
	pool      *pool[client[querypb.SchedulerClient]]
	guard     guard
	log       *slog.Logger
}

// WorkersDeps are what Workers work with.
type WorkersDeps struct {
	ClientDeps
	Querier   string // the name of the process
	Most      int    // workers over all schedulers, but a few for each at least
	Addresses func() []string
	Run       work.Runner
}

// NewWorkers returns workers for the schedulers that deps.Addresses names at any time.
func NewWorkers(cfg ClientConfig, deps WorkersDeps) (*Workers, error) {
	p, err := schedulerPool(cfg, peers{"query-scheduler-of-workers", deps.Registerer})
	if err != nil {
		return nil, err
	}
	w := &Workers{querier: deps.Querier, most: deps.Most, addresses: deps.Addresses, run: deps.Run, pool: p, log: deps.Log,
		guard: guard{deps.Log, newWorkerPanics(deps.Registerer)}}
	w.Service = services.NewBasicService(nil, w.running, func(error) error { return p.close() })
	return w, nil
}

// team is the workers at one scheduler.
type team struct {
	stops []context.CancelFunc
}

func (w *Workers) running(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	teams := map[string]*team{}
	defer func() {
		for _, t := range teams {
			t.resize(0, nil)
		}
	}()
	ticker := time.NewTicker(workersEvery)
	defer ticker.Stop()
	for {
		addrs := w.addresses()
		for addr, t := range teams {
			if !slices.Contains(addrs, addr) {
				t.resize(0, nil)
				delete(teams, addr)
			}
		}
		each := max(leastWorkers, (w.most+max(1, len(addrs))-1)/max(1, len(addrs)))
		for _, addr := range addrs {
			if teams[addr] == nil {
				teams[addr] = &team{}
			}
			teams[addr].resize(each, func() context.CancelFunc {
				// A worker is told to leave, and leaves when what it does is done.
				quit, leave := context.WithCancel(context.Background())
				wg.Go(func() { w.work(quit, addr) })
				return leave
			})
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// resize hires or lets go.
func (t *team) resize(n int, hire func() context.CancelFunc) {
	for len(t.stops) < n {
		t.stops = append(t.stops, hire())
	}
	for _, stop := range t.stops[n:] {
		stop()
	}
	t.stops = t.stops[:n]
}

// work is one worker at the scheduler addr until quit ends.
func (w *Workers) work(quit context.Context, addr string) {
	for quit.Err() == nil {
		err := w.pull(quit, addr)
		if quit.Err() != nil {
			return
		}
		if errs.KindOf(err) == errs.Canceled {
			continue // the scheduler did not want the answer any more
		}
		w.log.Debug("a worker lost its query-scheduler and goes back", "scheduler", addr, "err", err)
		select {
		case <-time.After(workerPause):
		case <-quit.Done():
		}
	}
}

// pull works at one stream until it ends.
func (w *Workers) pull(quit context.Context, addr string) error {
	c, err := w.pool.get(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stream, err := c.calls.Pull(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&querypb.FromWorker{Querier: w.querier}); err != nil {
		return err
	}
	tasks := make(chan *querypb.Assignment)
	ended := make(chan error, 1)
	go func() {
		for {
			a, err := stream.Recv()
			if err != nil {
				ended <- err
				cancel(err) // what runs for this stream is not wanted
				return
			}
			select {
			case tasks <- a:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case a := <-tasks:
			if err := w.do(ctx, a, stream.Send); err != nil {
				return <-ended
			}
		case err := <-ended:
			return err
		case <-quit.Done():
			return nil
		}
	}
}

// do does one piece of work and sends its answer to the end. Errors: those of send.
func (w *Workers) do(ctx context.Context, a *querypb.Assignment, send func(*querypb.FromWorker) error) error {
	whole := false
	err := w.try(ctx, a, func(p *querypb.Part, last bool) error {
		err := send(&querypb.FromWorker{Part: p, Done: last})
		whole = err == nil && last
		return err
	})
	switch {
	case whole: // there is no more to say
		return nil
	case err == nil:
		return send(&querypb.FromWorker{Done: true})
	}
	text := err.Error()
	if len(text) > maxStatusBytes {
		text = text[:maxStatusBytes]
	}
	return send(&querypb.FromWorker{Done: true, Error: &querypb.Failure{Kind: uint32(errs.KindOf(err)), Text: text}})
}

// try does a piece of work and sends its answer; the last part of it only if it knows that there is no other.
func (w *Workers) try(ctx context.Context, a *querypb.Assignment, send func(p *querypb.Part, last bool) error) (err error) {
	defer w.guard.recovered("work", &err)
	if _, err := tenant.ParseMany(a.Tenants); err != nil {
		return err
	}
	ctx = user.InjectOrgID(ctx, a.Tenants)
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(a.Timeout)*time.Millisecond)
		defer cancel()
	}
	if a.Work == nil {
		return errs.New(errs.Invalid, "an assignment is empty")
	}
	one, err := work.FromWire(ctx, a.Work, func(p *querypb.Part) error { return send(p, false) })
	if err != nil {
		return err
	}
	one.Last = func(p *querypb.Part) error { return send(p, true) }
	return w.run.Run(work.WithClass(ctx, one.Class), one)
}
