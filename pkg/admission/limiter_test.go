package admission

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errBusy = errors.New("busy")

// station is a service behind a reactive limiter that answers within its base time for as long as
// it has no more than capacity to do, and more slowly in proportion beyond that.
type station struct {
	*Limiter
	base     time.Duration
	capacity atomic.Int64
	doing    atomic.Int64
	served   atomic.Int64
	refused  atomic.Int64
	slowest  atomic.Int64
}

func (s *station) call(ctx context.Context) {
	began, err := s.Enter(ctx)
	if err != nil {
		s.refused.Add(1)
		time.Sleep(100 * time.Millisecond) // what a client leaves between attempts, shortened
		return
	}
	n := s.doing.Add(1)
	took := s.base
	if c := s.capacity.Load(); n > c {
		took = s.base * time.Duration(n) / time.Duration(c)
	}
	time.Sleep(took)
	s.doing.Add(-1)
	s.served.Add(1)
	for old := s.slowest.Load(); int64(took) > old && !s.slowest.CompareAndSwap(old, int64(took)); old = s.slowest.Load() {
	}
	s.Leave(began, true)
}

// drive calls the station from n clients for d.
func (s *station) drive(n int, d time.Duration) {
	s.served.Store(0)
	s.refused.Store(0)
	s.slowest.Store(0)
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.call(ctx)
			}
		})
	}
	wg.Wait()
}

func TestTheReactiveLimitFollowsWhatTheIngestersCanDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &station{Limiter: NewLimiter(LimiterConfig{true, 2, 200, 20}, errBusy), base: 10 * time.Millisecond}
		s.capacity.Store(100)
		s.drive(60, time.Minute)
		if limit, _, _ := s.State(); limit < 60 || s.slowest.Load() > int64(s.base) {
			t.Errorf("healthy: limit %g, want room for the 60 clients", limit)
		}
		if s.refused.Load() > s.served.Load()/20 {
			t.Errorf("healthy: %d of %d refused", s.refused.Load(), s.served.Load())
		}

		s.capacity.Store(10) // nine ingesters of ten are gone
		s.drive(60, 10*time.Second)
		if limit, _, _ := s.State(); limit > 30 {
			t.Errorf("overloaded for ten seconds: limit %g, want it near the capacity of 10", limit)
		}
		s.drive(60, 10*time.Second)
		if s.slowest.Load() > 4*int64(s.base) || s.served.Load() < 7000 {
			t.Errorf("overloaded: the slowest of %d pushes took %s, want at least 7000 of the 10000 possible, each within 40ms", s.served.Load(), time.Duration(s.slowest.Load()))
		}

		s.capacity.Store(100)
		s.drive(60, time.Minute)
		if limit, _, _ := s.State(); limit < 60 {
			t.Errorf("healthy again: limit %g", limit)
		}
	})
}

func TestALimitNobodyComesNearDoesNotRise(t *testing.T) {
	c := LimiterConfig{true, 2, 200, 20}
	if l, b := nextLimit(c, 20, 0, 0.01, 20); l != 20 || b != 0.01 {
		t.Errorf("first window: limit %g, baseline %g", l, b)
	}
	if l, _ := nextLimit(c, 20, 0.01, 0.01, 9); l != 20 {
		t.Errorf("unused: limit %g, want 20", l)
	}
	if l, _ := nextLimit(c, 20, 0.01, 0.01, 10); l <= 20 {
		t.Errorf("used: limit %g, want more than 20", l)
	}
	if l, _ := nextLimit(c, 20, 0.01, 10, 20); l != 10 {
		t.Errorf("very slow: limit %g, want 10", l)
	}
	if l, _ := nextLimit(c, 2, 0.01, 10, 2); l != 2 {
		t.Errorf("at the least: limit %g, want 2", l)
	}
	if l, _ := nextLimit(c, 199, 0.01, 0.01, 199); l != 200 {
		t.Errorf("at the most: limit %g, want 200", l)
	}
}

func TestPushesBeyondTheReactiveLimitWaitBrieflyOrAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewLimiter(LimiterConfig{true, 1, 10, 2}, errBusy)
		first, err := r.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		third, fourth := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := r.Enter(t.Context())
			third <- err
		}()
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		go func() {
			_, err := r.Enter(gone)
			fourth <- err
		}()
		synctest.Wait()
		if _, err := r.Enter(t.Context()); !errors.Is(err, errBusy) {
			t.Errorf("beyond those that may wait: %v", err)
		}
		leave()
		if err := <-fourth; !errors.Is(err, context.Canceled) {
			t.Errorf("the client went away: %v", err)
		}
		r.Leave(first, true)
		if err := <-third; err != nil {
			t.Errorf("its turn came: %v", err)
		}
		start := time.Now()
		if _, err := r.Enter(t.Context()); !errors.Is(err, errBusy) || time.Since(start) != turnWait {
			t.Errorf("waited %s: %v", time.Since(start), err)
		}
		if _, inflight, waiting := r.State(); inflight != 2 || waiting != 0 {
			t.Errorf("%d in flight and %d waiting, want 2 and none", inflight, waiting)
		}
	})
}

func TestTheLessImportantGiveWayWhileTheOthersAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := NewLimiter(LimiterConfig{true, 2, 200, 20}, errBusy)
		reads := NewLimiter(LimiterConfig{true, 2, 200, 20}, errBusy, nil, writes)
		let := func() (n int) {
			for {
				if _, err := reads.Enter(t.Context()); err != nil {
					return n
				}
				if n++; n == 20 {
					return n
				}
			}
		}
		if n := let(); n != 20 {
			t.Errorf("%d reads let in while writes go well, want 20", n)
		}
		for range 20 {
			reads.Leave(time.Now(), false)
		}
		end := func(took time.Duration) {
			for range fewLatest + 1 {
				began, err := writes.Enter(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(took)
				writes.Leave(began, true)
			}
		}
		end(30 * time.Millisecond)
		end(30 * time.Millisecond)
		end(300 * time.Millisecond)
		if n := let(); n != 2 {
			t.Errorf("%d reads let in while writes are slow, want 2", n)
		}
		reads.Leave(time.Now(), false)
		reads.Leave(time.Now(), false)
		time.Sleep(longWindow) // nothing more is heard of writes
		if n := let(); n != 20 {
			t.Errorf("%d reads let in afterwards, want 20", n)
		}
	})
}
