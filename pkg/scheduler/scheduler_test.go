package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func started(t *testing.T, cfg Config, view limits.View) *Scheduler {
	t.Helper()
	if cfg.MaxOutstanding == 0 {
		cfg.MaxOutstanding = 100
	}
	if cfg.MaxShare == 0 {
		cfg.MaxShare = 1
	}
	s, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Limits: func(tenant.ID) limits.View { return view }})
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask queues work for a tenant and returns where its outcome comes.
func ask(t *testing.T, s *Scheduler, id string, class work.Class) <-chan error {
	t.Helper()
	out := make(chan error, 1)
	ctx := tenant.Inject(t.Context(), tenant.ID(id))
	go func() { out <- s.Run(ctx, &work.Work{Class: class, Query: &work.Query{Text: id}}) }()
	synctest.Wait()
	return out
}

// order has one worker do n pieces of work and returns whose they were.
func order(t *testing.T, s *Scheduler, n int) string {
	t.Helper()
	var got []string
	for range n {
		task, err := s.Next(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, task.Work.Query.Text)
		task.Finish(nil)
	}
	return strings.Join(got, " ")
}

func TestTenantsTakeTurnsWhateverTheirQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.View{})
		for range 4 {
			ask(t, s, "many", work.AdHoc)
		}
		ask(t, s, "few", work.AdHoc)
		ask(t, s, "one", work.AdHoc)
		if got, want := order(t, s, 6), "many few one many many many"; got != want {
			t.Errorf("order = %s, want %s", got, want)
		}
	})
}

func TestRulesGoBeforeDashboardsAndThoseBeforeTheRestButNobodyStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.View{})
		for i := range 3 {
			ask(t, s, fmt.Sprint("adhoc", i), work.AdHoc)
			ask(t, s, fmt.Sprint("board", i), work.Dashboard)
		}
		for i := range 8 {
			ask(t, s, fmt.Sprint("rule", i), work.Rule)
		}
		got := strings.Fields(order(t, s, 14))
		if got[0] != "rule0" || got[1] != "rule1" {
			t.Errorf("first were %v", got[:2])
		}
		if first := slices.Index(got, "adhoc0"); first > 8 {
			t.Errorf("the lowest class waited for %d turns: %v", first, got)
		}
	})
}

func TestATenantOverItsQueueIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{MaxOutstanding: 2}, limits.View{})
		ask(t, s, "a", work.AdHoc)
		ask(t, s, "a", work.Rule)
		err := <-ask(t, s, "a", work.AdHoc)
		if errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "too many outstanding requests") {
			t.Errorf("third = %v", err)
		}
		ask(t, s, "b", work.AdHoc)
		if got := order(t, s, 3); got != "a a b" && got != "a b a" {
			t.Errorf("order = %s", got)
		}
	})
}

func TestOneTenantLeavesWorkersToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{MaxShare: 0.5}, limits.View{})
		var mu sync.Mutex
		got := map[string]int{}
		for range 4 {
			go func() {
				task, err := s.Next(t.Context(), "q")
				if err == nil {
					mu.Lock()
					got[task.Work.Query.Text]++
					mu.Unlock()
					defer task.Finish(nil)
				}
				<-t.Context().Done()
			}()
		}
		synctest.Wait()
		for range 10 {
			ask(t, s, "many", work.AdHoc)
		}
		ask(t, s, "few", work.AdHoc)
		mu.Lock()
		defer mu.Unlock()
		if got["many"] != 2 || got["few"] != 1 {
			t.Errorf("workers hold %v", got)
		}
	})
}

func TestATenantIsServedByItsShardOfQueriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.MaxQueriersPerTenant.With(limits.View{}, 2))
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		served := map[string]bool{}
		for i := range 8 {
			name := fmt.Sprint("querier-", i)
			for range 4 {
				go func() {
					for {
						task, err := s.Next(ctx, name)
						if err != nil {
							return
						}
						mu.Lock()
						served[name] = true
						mu.Unlock()
						time.Sleep(time.Second)
						task.Finish(nil)
					}
				}()
			}
		}
		synctest.Wait()
		for range 40 {
			ask(t, s, "a", work.AdHoc)
		}
		time.Sleep(time.Minute)
		stop()
		if len(served) != 2 {
			t.Errorf("served by %v, want 2 queriers", served)
		}
	})
}

func TestWorkOfALostQuerierGoesToAnotherButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.View{})
		out := ask(t, s, "a", work.AdHoc)
		for range mostTries {
			task, err := s.Next(t.Context(), "q")
			if err != nil {
				t.Fatal(err)
			}
			task.Return()
		}
		if err := <-out; errs.KindOf(err) != errs.Unavailable {
			t.Errorf("outcome = %v", err)
		}
		if !s.queue.idle() {
			t.Error("work is left")
		}
	})
}

func TestWorkThatIsNotWantedAnyMoreLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.View{})
		ctx, cancel := context.WithCancelCause(tenant.Inject(t.Context(), "a"))
		out := make(chan error, 1)
		go func() { out <- s.Run(ctx, &work.Work{Query: &work.Query{}}) }()
		synctest.Wait()
		gone := errors.New("gone")
		cancel(gone)
		if err := <-out; !errors.Is(err, gone) {
			t.Errorf("outcome = %v", err)
		}
		if s.queue.length != 0 || len(s.queue.tenants) != 0 {
			t.Errorf("%d pieces of %d tenants are left", s.queue.length, len(s.queue.tenants))
		}
	})
}

func TestASchedulerThatStopsFinishesWhatItHasAndTakesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := started(t, Config{}, limits.View{})
		first := ask(t, s, "a", work.AdHoc)
		s.StopAsync()
		synctest.Wait()
		if err := <-ask(t, s, "a", work.AdHoc); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("new work = %v", err)
		}
		if got := order(t, s, 1); got != "a" {
			t.Errorf("order = %s", got)
		}
		if err := <-first; err != nil {
			t.Errorf("old work = %v", err)
		}
		if err := s.AwaitTerminated(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := s.Next(t.Context(), "q"); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("a worker was told %v", err)
		}
	})
}
