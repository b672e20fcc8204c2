package turns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type workKey struct{}

type asker struct {
	tenant string
	class  Class
}

func by(ctx context.Context, tenant string, c Class) context.Context {
	return context.WithValue(ctx, workKey{}, asker{tenant, c})
}

func gate(places int) *Gate {
	return New(places, func(ctx context.Context) (string, Class) {
		a, _ := ctx.Value(workKey{}).(asker)
		return a.tenant, a.class
	}, prometheus.NewRegistry())
}

// unit is a piece of work between two looks at who is due. In the bubble of a test it takes its time and
// no other, however slow the machine is.
const unit = 50 * time.Microsecond

// compute does work for a time, and stops early if ctx ends.
func compute(ctx context.Context, t *Turn, d time.Duration) (did time.Duration) {
	for ; did < d && ctx.Err() == nil; did += unit {
		time.Sleep(unit)
		t.Yield()
	}
	return did
}

// settled fails the test if the gate holds anything when nobody has a turn.
func settled(t *testing.T, g *Gate, places int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free != places || len(g.held) != 0 || g.waiting.Load() != 0 || len(g.hungry) != 0 || len(g.shares) != 0 {
		t.Errorf("%d turns of %d are free, %d wait, %d tenants are hungry, %d known", g.free, places, g.waiting.Load(), len(g.hungry), len(g.shares))
	}
}

func TestALoneTenantHasTheWholeMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				ctx, turn, end := g.Begin(by(t.Context(), "a", 0))
				defer end()
				compute(ctx, turn, 100*time.Millisecond)
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != 400*time.Millisecond {
			t.Errorf("800 ms of work on 2 processors took %s", took)
		}
		settled(t, g, 2)
	})
}

// crowd has n goroutines of a tenant compute until ctx ends, and returns how long each tenant did.
func crowd(ctx context.Context, g *Gate, wg *sync.WaitGroup, n int, sum *time.Duration) {
	var mu sync.Mutex
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				in, turn, end := g.Begin(ctx)
				did := compute(in, turn, 37*time.Millisecond)
				end()
				mu.Lock()
				*sum += did
				mu.Unlock()
			}
		})
	}
}

func TestTenantsShareEvenlyHoweverManyGoroutinesTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		var many, few, rules time.Duration
		crowd(by(ctx, "many", 0), g, &wg, 30, &many)
		crowd(by(ctx, "few", 0), g, &wg, 2, &few)
		crowd(by(ctx, "rules", 2), g, &wg, 4, &rules)
		wg.Wait()
		// Work that matters most counts a quarter: of 6 parts the tenants have 1, 1 and 4, but of 2
		// processors.
		if float64(many) > 1.1*float64(few) || float64(few) > 1.1*float64(many) || float64(rules) < 3.5*float64(few) || float64(rules) > 4.5*float64(few) {
			t.Errorf("a tenant of 30 goroutines had %s, one of 2 had %s, one of 4 rules had %s", many, few, rules)
		}
		if all := many + few + rules; all < 3900*time.Millisecond {
			t.Errorf("of 4 s of two processors %s were used", all)
		}
		settled(t, g, 2)
	})
}

func TestANewcomerIsDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var loud time.Duration
		crowd(by(ctx, "loud", 1), g, &wg, 15, &loud)
		time.Sleep(500 * time.Millisecond)
		for range 50 {
			begin := time.Now()
			in, turn, end := g.Begin(by(t.Context(), "calm", 0))
			waited := time.Since(begin)
			compute(in, turn, 2*time.Millisecond)
			end()
			if took := time.Since(begin); waited > unit || took > 2*time.Millisecond+unit {
				t.Fatalf("2 ms of work of a tenant with little to do waited %s and took %s", waited, took)
			}
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		settled(t, g, 2)
	})
}

func TestANewcomerOvertakesWhoHasTheOnlyPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var loud time.Duration
		crowd(by(ctx, "loud", 1), g, &wg, 15, &loud)
		time.Sleep(100*time.Millisecond + unit/2) // in the midst of a piece of work
		computing := func() (calm, all int) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, h := range g.held {
				if h.share.tenant == "calm" {
					calm++
				}
			}
			return calm, len(g.held)
		}
		for range 8 {
			wg.Go(func() {
				in, turn, end := g.Begin(by(t.Context(), "calm", 1))
				defer end()
				compute(in, turn, time.Millisecond)
			})
		}
		synctest.Wait()
		if calm, all := computing(); calm != 1 || all != 2 {
			t.Errorf("at once %d of a newcomer's goroutines compute, of %d", calm, all)
		}
		time.Sleep(unit)
		synctest.Wait()
		if calm, all := computing(); calm != 1 || all != 1 {
			t.Errorf("soon %d of a newcomer's goroutines compute, of %d", calm, all)
		}
		cancel()
		wg.Wait()
		settled(t, g, 1)
	})
}

func TestTheKernelIsAskedOnlyAmongSeveralTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		several := func() bool { return g.now() < time.Duration(g.company.Load()) }
		work := func(tenant string, d time.Duration) {
			in, turn, end := g.Begin(by(t.Context(), tenant, 0))
			defer end()
			compute(in, turn, d)
		}
		work("a", time.Millisecond)
		work("a", time.Millisecond)
		work("b", time.Millisecond) // a has nothing to do
		if several() {
			t.Error("one tenant at a time has company")
		}
		var wg sync.WaitGroup
		wg.Go(func() { work("a", 10*time.Millisecond) })
		work("b", time.Millisecond)
		if !several() {
			t.Error("two tenants at a time have no company")
		}
		wg.Wait()
		time.Sleep(company)
		if several() {
			t.Error("who asked a minute ago is company")
		}
	})
}

func TestAPlaceIsKeptForWhoAsksNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var loud time.Duration
		crowd(by(ctx, "loud", 1), g, &wg, 15, &loud)
		ask := func() time.Duration {
			begin := time.Now()
			in, turn, end := g.Begin(by(t.Context(), "calm", 0))
			defer end()
			defer compute(in, turn, time.Millisecond)
			return time.Since(begin)
		}
		ask()
		for i := range 20 {
			time.Sleep(recent - time.Duration(i+1)*time.Millisecond)
			if waited := ask(); waited != 0 {
				t.Fatalf("query %d waited %s", i, waited)
			}
		}
		free := func() int {
			synctest.Wait()
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.free
		}
		if n := free(); n != 1 {
			t.Errorf("%d places are free beside a tenant that has asked just now", n)
		}
		time.Sleep(recent + patience + unit)
		if n := free(); n != 0 {
			t.Errorf("%d places are free beside one that asks no more", n)
		}
		cancel()
		wg.Wait()
		settled(t, g, 2)
	})
}

func TestWithinATenantWhatMattersMoreGoesFirstAndAllEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		var high, low time.Duration
		crowd(by(ctx, "a", 2), g, &wg, 3, &high)
		crowd(by(ctx, "a", 0), g, &wg, 3, &low)
		wg.Wait()
		if low == 0 || high < 2*low {
			t.Errorf("what matters had %s, the rest %s", high, low)
		}
		settled(t, g, 1)
	})
}

func TestWhoWaitsForSomethingElseGivesItsTurnUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		ctx, turn, end := g.Begin(by(t.Context(), "a", 0))
		if again, same, noEnd := g.Begin(ctx); again != ctx || same != turn {
			t.Error("work of a turn got another one")
		} else {
			noEnd()
		}
		done := make(chan struct{})
		go func() { // its own part, which it waits for
			defer close(done)
			ctx := Apart(ctx)
			if Of(ctx) != nil {
				t.Error("another goroutine has the turn")
			}
			_, _, end := g.Begin(ctx)
			end()
		}()
		turn.Rest()
		turn.Rest()
		<-done
		turn.Resume()
		turn.Resume()
		end()
		settled(t, g, 1)
	})
}

func TestWorkThatIsNotWantedAnyMoreWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		_, _, end := g.Begin(by(t.Context(), "a", 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, turn, endOther := g.Begin(by(ctx, "b", 0)) // returns although nobody gives its turn up
		turn.Yield()
		turn.Rest()
		turn.Resume()
		endOther()
		end()
		settled(t, g, 1)
	})
}

func TestWhoDoesNotLookUpHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, turn, end := g.Begin(by(t.Context(), "stubborn", 2))
				defer end()
				time.Sleep(5 * time.Second) // in code that knows nothing of turns
				turn.Yield()
				turn.Rest()
			})
		}
		synctest.Wait()
		begin := time.Now()
		for range 10 {
			ctx, turn, end := g.Begin(by(t.Context(), "calm", 0))
			compute(ctx, turn, time.Millisecond)
			end()
		}
		if took := time.Since(begin); took > 3*patience {
			t.Errorf("10 ms of work beside it took %s", took)
		}
		wg.Wait()
		settled(t, g, 2)
	})
}

// consistent fails the test if what the gate knows contradicts itself.
func consistent(t *testing.T, g *Gate) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	held, queued, idle := 0, 0, 0
	for name, s := range g.shares {
		has, waits := 0, 0
		for _, h := range g.held {
			if h.share == s {
				has++
			}
		}
		for _, q := range s.queue {
			waits += len(q)
		}
		if s.turns == 0 {
			idle++
		}
		if s.held != has || s.queued != waits || (waits > 0) != slices.Contains(g.hungry, s) || s.turns < has+waits {
			t.Errorf("tenant %s of %d turns: has %d, counted %d; waits for %d, counted %d", name, s.turns, has, s.held, waits, s.queued)
		}
		held, queued = held+has, queued+waits
	}
	if held != len(g.held) || g.free+held != g.places || held > g.places+1 || held > g.places && g.places > 1 || queued != int(g.waiting.Load()) || idle != g.idle {
		t.Errorf("%d of %d places are free, %d held by known tenants, %d in all; %d wait, counted %d; %d tenants are idle, counted %d",
			g.free, g.places, held, len(g.held), queued, g.waiting.Load(), idle, g.idle)
	}
}

func TestNobodyIsForgottenWhateverHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(6) {
			places := 1 + int(seed)%3
			g := gate(places)
			var wg sync.WaitGroup
			for i := range 30 {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(60))*time.Millisecond)
					defer cancel()
					for ctx.Err() == nil {
						in, turn, end := g.Begin(by(ctx, strconv.Itoa(r.IntN(6)), Class(r.IntN(5))))
						whatever(in, t, turn, r)
						end()
						consistent(t, g)
					}
				})
			}
			wg.Wait()
			settled(t, g, places)
		}
	})
}

// whatever does what may be done with a turn.
func whatever(ctx context.Context, t *testing.T, turn *Turn, r *rand.Rand) {
	t.Helper()
	begin := time.Now()
	var helpers sync.WaitGroup
	for range r.IntN(20) {
		compute(ctx, turn, time.Duration(r.IntN(20))*unit)
		switch r.IntN(9) {
		case 0:
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		case 1, 2:
			turn.Rest()
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
			turn.Resume()
		case 3, 4, 5:
			if second, end, ok := turn.Second(); ok {
				d := time.Duration(r.IntN(300)) * unit
				helpers.Go(func() {
					defer end()
					compute(ctx, second, d)
					second.Rest()
					second.Resume()
				})
			}
		}
		consistent(t, turn.gate)
	}
	turn.Rest()
	helpers.Wait()
	turn.Resume()
	if did := turn.Computed(); did < 0 || did > time.Since(begin) {
		t.Errorf("%s were computed in %s", did, time.Since(begin))
	}
}

func TestWhatTenantsHadIsForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var loud time.Duration
		crowd(by(ctx, "loud", 0), g, &wg, 2, &loud)
		for i := range 1500 {
			in, turn, end := g.Begin(by(ctx, fmt.Sprint("t", i), 0))
			compute(in, turn, 3*time.Millisecond)
			end()
			g.mu.Lock()
			n := len(g.shares)
			g.mu.Unlock()
			if n > 1000 {
				t.Fatalf("%d tenants are remembered", n)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestWithoutAGateEverybodyGoesOn(t *testing.T) {
	var g *Gate
	ctx, turn, end := g.Begin(t.Context())
	turn.Yield()
	turn.Rest()
	turn.Resume()
	end()
	if ctx != t.Context() || Of(ctx) != nil {
		t.Error("there is a turn")
	}
}

func BenchmarkATurnThatNobodyElseWants(b *testing.B) {
	g := gate(2)
	ctx := by(b.Context(), "a", 0)
	b.Run("begin", func(b *testing.B) {
		for b.Loop() {
			_, _, end := g.Begin(ctx)
			end()
		}
	})
	_, turn, end := g.Begin(ctx)
	defer end()
	b.Run("yield", func(b *testing.B) {
		for b.Loop() {
			turn.Yield()
		}
	})
}

func TestATurnKnowsHowLongItComputed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1)
		ctx := by(t.Context(), "a", 0)
		_, turn, end := g.Begin(ctx)
		about := func(what string, want time.Duration) {
			t.Helper()
			if got := turn.Computed(); got < want-unit || got > want+unit {
				t.Errorf("%s it says that it computed for %s, want %s", what, got, want)
			}
		}
		about("at once", 0)
		compute(ctx, turn, 20*time.Millisecond)
		about("alone", 20*time.Millisecond)
		turn.Rest()
		time.Sleep(time.Second)
		about("at rest", 20*time.Millisecond)
		turn.Rest()
		turn.Resume()
		about("after a rest", 20*time.Millisecond)
		compute(ctx, turn, 20*time.Millisecond)
		about("after more", 40*time.Millisecond)
		done := make(chan time.Duration)
		go func() {
			ctx := by(t.Context(), "b", 0)
			_, turn, end := g.Begin(ctx)
			defer end()
			compute(ctx, turn, 30*time.Millisecond)
			done <- turn.Computed()
		}()
		synctest.Wait()
		begin := time.Now()
		did := compute(ctx, turn, 60*time.Millisecond)
		if other := <-done; other < 30*time.Millisecond-unit || other > 30*time.Millisecond+unit {
			t.Errorf("beside it another computed for %s, want 30ms", other)
		}
		if took := time.Since(begin); took < did+20*time.Millisecond {
			t.Fatalf("it had %s of %s: it waited for nobody", did, took)
		}
		about("beside another", 40*time.Millisecond+did)
		end()
		var none *Turn
		if none.Computed() != 0 {
			t.Error("without turns it says that it computed")
		}
	})
}
