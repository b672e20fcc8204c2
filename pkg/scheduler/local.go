package scheduler

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Workers returns a service of n workers of a querier in this process: they call run, by pointer and
// without sockets. When it stops, it waits for the work that they have.
func (s *Scheduler) Workers(querier string, n int, run work.Runner) services.Service {
	return services.NewBasicService(nil, func(ctx context.Context) error {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for {
					t, err := s.Next(ctx, querier)
					if err != nil {
						return
					}
					t.Finish(s.do(t, run))
				}
			})
		}
		<-ctx.Done()
		wg.Wait()
		return nil
	}, nil)
}

// do runs one task; a panic is its error.
func (s *Scheduler) do(t *Task, run work.Runner) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.deps.Logger.Error("work panicked, it was answered with an error", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errs.New(errs.Internal, "internal error, see the log of the process")
		}
	}()
	return run.Run(t.Context, t.Work)
}
