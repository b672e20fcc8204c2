package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

type pulled = grpc.BidiStreamingClient[querypb.FromWorker, querypb.Assignment]

// hired is a worker in another process.
func hired(t *testing.T, ctx context.Context, c querypb.SchedulerClient, querier string) pulled { //nolint:revive // As testing.T is first in tests.
	t.Helper()
	w, err := c.Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(&querypb.FromWorker{Querier: querier}); err != nil {
		t.Fatal(err)
	}
	return w
}

// assigned is the text of the work that a worker gets next.
func assigned(t *testing.T, w pulled) string {
	t.Helper()
	a, err := w.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return a.Work.Query.Text
}

func queried(t *testing.T, ctx context.Context, c querypb.SchedulerClient, text string) grpc.ServerStreamingClient[querypb.Part] { //nolint:revive // As above.
	t.Helper()
	s, err := c.Run(ctx, &querypb.Work{Query: &querypb.Query{Text: text}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func says(t *testing.T, w pulled, m *querypb.FromWorker) {
	t.Helper()
	if err := w.Send(m); err != nil {
		t.Fatal(err)
	}
}

func whole(samples int64) *querypb.FromWorker {
	return &querypb.FromWorker{Part: &querypb.Part{Samples: samples}, Done: true}
}

// answered is the one part of an answer.
func answered(t *testing.T, s grpc.ServerStreamingClient[querypb.Part]) int64 {
	t.Helper()
	p, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the answer ends with %v", err)
	}
	return p.Samples
}

// idle waits until nobody has work and only as many workers are there.
func idle(t *testing.T, s *Scheduler, workers int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; <-time.After(time.Millisecond) {
		s.mu.Lock()
		is, n, waiting := s.queue.idle(), s.workers, len(s.waiters)
		s.mu.Unlock()
		if is && n == workers && waiting == workers {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("idle: %t, %d workers, of which %d wait; want %d", is, n, waiting, workers)
		}
	}
}

// TestAWorkerWhoseQueryHasEndedLearnsIt from the end of its stream, and nobody else does.
func TestAWorkerWhoseQueryHasEndedLearnsIt(t *testing.T) {
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	first := hired(t, t.Context(), c, "q1")
	gone := queried(t, ctx, c, "gone")
	if got := assigned(t, first); got != "gone" {
		t.Fatalf("assigned %q", got)
	}
	second := hired(t, t.Context(), c, "q2")
	kept := queried(t, t.Context(), c, "kept")
	if got := assigned(t, second); got != "kept" {
		t.Fatalf("assigned %q", got)
	}
	cancel()
	if _, err := gone.Recv(); err == nil {
		t.Error("a query that was given up is answered")
	}
	if _, err := first.Recv(); err == nil || !strings.Contains(err.Error(), "the query has ended") {
		t.Errorf("its worker is told %v", err)
	}
	says(t, second, whole(7))
	if got := answered(t, kept); got != 7 {
		t.Errorf("answered %d", got)
	}
	idle(t, s, 1)
}

// TestWorkOfAWorkerThatLeavesGoesToAnother, be it before it said anything; after that the answer is lost.
func TestWorkOfAWorkerThatLeavesGoesToAnother(t *testing.T) {
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	for _, begun := range []bool{false, true} {
		ctx, leave := context.WithCancel(t.Context())
		first := hired(t, ctx, c, "q1")
		asked := queried(t, t.Context(), c, "x")
		assigned(t, first)
		if begun {
			says(t, first, &querypb.FromWorker{Part: &querypb.Part{Samples: 1}})
			if p, err := asked.Recv(); err != nil || p.Samples != 1 {
				t.Fatal(p, err)
			}
		}
		leave()
		if begun {
			if _, err := asked.Recv(); err == nil || !strings.Contains(err.Error(), "was lost") {
				t.Errorf("the rest of the answer is %v", err)
			}
			idle(t, s, 0)
			continue
		}
		ctx, leave = context.WithCancel(t.Context())
		second := hired(t, ctx, c, "q2")
		if got := assigned(t, second); got != "x" {
			t.Errorf("assigned %q", got)
		}
		says(t, second, whole(3))
		if got := answered(t, asked); got != 3 {
			t.Errorf("answered %d", got)
		}
		leave()
		idle(t, s, 0)
	}
}

// TestAnAnswerToNothingEndsTheWorker, so that it is not taken for one to the next query.
func TestAnAnswerToNothingEndsTheWorker(t *testing.T) {
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	w := hired(t, t.Context(), c, "q")
	says(t, w, whole(1))
	if _, err := w.Recv(); err == nil || !strings.Contains(err.Error(), "had no work") {
		t.Errorf("it is told %v", err)
	}
	idle(t, s, 0)
}

// TestASchedulerThatStopsLetsWorkersElsewhereFinish, and sends those away that have nothing to do.
func TestASchedulerThatStopsLetsWorkersElsewhereFinish(t *testing.T) {
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	w := hired(t, t.Context(), c, "q1")
	asked := queried(t, t.Context(), c, "x")
	assigned(t, w)
	free := hired(t, t.Context(), c, "q2")
	s.StopAsync()
	says(t, w, whole(5))
	if got := answered(t, asked); got != 5 {
		t.Errorf("answered %d", got)
	}
	for _, w := range []pulled{w, free} {
		if _, err := w.Recv(); err == nil || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("a worker is told %v", err)
		}
	}
	if err := s.AwaitTerminated(t.Context()); err != nil {
		t.Error(err)
	}
	idle(t, s, 0)
}

// TestWorkersElsewhereComeAndGoWhileQueriesDo: every answer is that of its query, and at the end nothing is left over.
func TestWorkersElsewhereComeAndGoWhileQueriesDo(t *testing.T) {
	const workers, askers, each = 6, 12, 60
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	ctx, stop := context.WithCancel(t.Context())
	var working, asking sync.WaitGroup
	for i := range workers {
		working.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for ctx.Err() == nil {
				comeAndGo(ctx, c, fmt.Sprint("q", i%3), r)
			}
		})
	}
	var good atomic.Int64
	for i := range askers {
		asking.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for n := range each {
				want := int64(1 + i*each + n) // a part of which everything is 0 is empty, which is none
				ctx, cancel := context.WithCancel(t.Context())
				asked, err := c.Run(ctx, &querypb.Work{Query: &querypb.Query{Text: "x", Start: want}})
				if err != nil {
					t.Error(err)
				}
				if r.IntN(4) == 0 {
					go cancel()
				}
				p, err := asked.Recv()
				if err == nil && p.Samples != want {
					t.Errorf("query %d is answered %d", want, p.Samples)
				}
				if err == nil {
					good.Add(1)
				} else if ctx.Err() == nil && !strings.Contains(err.Error(), "was lost") {
					t.Errorf("query %d: %v", want, err)
				}
				cancel()
			}
		})
	}
	asking.Wait()
	stop()
	working.Wait()
	if n := good.Load(); n < askers*each/4 {
		t.Errorf("only %d of %d queries were answered", n, askers*each)
	}
	idle(t, s, 0)
}

// comeAndGo is a worker that answers each query with its start, for some time, and leaves at any moment.
func comeAndGo(ctx context.Context, c querypb.SchedulerClient, querier string, r *rand.Rand) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	w, err := c.Pull(ctx)
	if err != nil || w.Send(&querypb.FromWorker{Querier: querier}) != nil {
		return
	}
	for r.IntN(20) > 0 {
		a, err := w.Recv()
		if err != nil {
			return
		}
		if r.IntN(3) == 0 && w.Send(&querypb.FromWorker{Part: &querypb.Part{Samples: a.Work.Query.Start}}) != nil {
			return
		}
		if r.IntN(20) == 0 {
			return
		}
		if w.Send(whole(a.Work.Query.Start)) != nil {
			return
		}
	}
}

// TestAWorkerNeverKeepsWorkThatNobodyWants gives queries up at any moment: one that a worker got ends its stream.
func TestAWorkerNeverKeepsWorkThatNobodyWants(t *testing.T) {
	s := started(t, Config{}, limits.View{})
	c := served(t, s)
	r := rand.New(rand.NewPCG(3, 4))
	got, never := 0, 0
	for range 400 {
		all, leave := context.WithCancel(t.Context())
		w := hired(t, all, c, "q")
		if r.IntN(2) == 0 {
			idle(t, s, 1)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(1500))*time.Microsecond)
		asked, err := c.Run(ctx, &querypb.Work{Query: &querypb.Query{Text: "x"}})
		if err == nil {
			_, err = asked.Recv()
		}
		cancel()
		if err == nil {
			t.Fatal("a query that nobody answers is answered")
		}
		kept := queried(t, t.Context(), c, "kept") // which the worker gets if it did not get the other one
		switch a, err := w.Recv(); {
		case err != nil:
			t.Fatal(err)
		case a.Work.Query.Text == "x":
			if _, err := w.Recv(); err == nil || !strings.Contains(err.Error(), "the query has ended") {
				t.Fatalf("the worker of a query that nobody wants is told %v", err)
			}
			got++
			leave()
			w = hired(t, t.Context(), c, "q")
			if a, err := w.Recv(); err != nil || a.Work.Query.Text != "kept" {
				t.Fatal(a, err)
			}
		default:
			never++
		}
		says(t, w, whole(1))
		answered(t, kept)
		leave()
		_ = w.CloseSend()
		idle(t, s, 0)
	}
	t.Logf("the worker got %d, and %d never", got, never)
}
