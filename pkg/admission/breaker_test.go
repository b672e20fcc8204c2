package admission

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// breakerConfig is the default one.
func breakerConfig(t *testing.T) BreakerConfig {
	t.Helper()
	c := BreakerConfig{RequestTimeout: 2 * time.Second}
	c.Declare(config.NewSet())
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends n requests through b that fail or not, and returns how many were let through.
func send(b *Breaker, n int, failed bool) (allowed int) {
	for range n {
		if p, _, ok := b.Allow(); ok {
			allowed++
			b.Done(p, failed)
		}
	}
	return allowed
}

func TestABreakerOpensWhenEnoughOfEnoughFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		b := NewBreaker(breakerConfig(t), func(s BreakerState) { states = append(states, s.String()) })
		send(b, 89, false)
		if send(b, 10, true); b.State() != Closed {
			t.Fatal("opened after 99 requests")
		}
		if send(b, 1, false); b.State() != Open {
			t.Fatalf("%s after 10 of 100 failed", b.State())
		}
		if n := send(b, 5, false); n != 0 {
			t.Errorf("%d requests let through while open", n)
		}
		if _, left, _ := b.Allow(); left != 10*time.Second {
			t.Errorf("stays open for %s, want 10s", left)
		}
		time.Sleep(10 * time.Second)
		if n := send(b, 1, true); n != 1 || b.State() != Open {
			t.Errorf("%s after a failure while half open", b.State())
		}
		time.Sleep(10 * time.Second)
		if n := send(b, 30, false); n != 30 || b.State() != Closed {
			t.Errorf("%s after %d successes", b.State(), n)
		}
		if got := strings.Join(states, " "); got != "open half-open open half-open closed" {
			t.Errorf("states %s", got)
		}
		send(b, 60, false)
		if send(b, 9, true); b.State() != Closed {
			t.Error("what came before the breaker opened is counted again")
		}
	})
}

func TestABreakerForgetsWhatIsOlderThanItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(breakerConfig(t), nil)
		send(b, 50, true)
		time.Sleep(61 * time.Second)
		send(b, 95, false)
		if send(b, 5, true); b.State() != Closed {
			t.Error("opened by failures of another period")
		}
	})
}

func TestARequestThatTakesTooLongHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(breakerConfig(t), nil)
		var permits []Permit
		for range 100 {
			p, _, _ := b.Allow()
			permits = append(permits, p)
		}
		time.Sleep(2*time.Second + 1)
		for _, p := range permits {
			if !b.Done(p, false) {
				t.Fatal("a request of more than two seconds was in time")
			}
		}
		if b.State() != Open {
			t.Error("a breaker whose requests all take too long is closed")
		}
	})
}

func TestAHalfOpenBreakerLetsFewThroughAndListensToThemAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBreaker(breakerConfig(t), nil)
		old, _, _ := b.Allow()
		send(b, 100, true)
		time.Sleep(10 * time.Second)
		var permits []Permit
		for range 50 {
			if p, _, ok := b.Allow(); ok {
				permits = append(permits, p)
			}
		}
		if len(permits) != breakerTrials {
			t.Errorf("%d requests let through while half open, want %d", len(permits), breakerTrials)
		}
		b.Done(old, true) // of a time long gone
		for _, p := range permits {
			b.Done(p, false)
		}
		if b.State() != Closed {
			t.Errorf("%s after all trials went well", b.State())
		}
	})
}

func TestABreakerDoesNotCountTheFirstMomentsIfToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := breakerConfig(t)
		c.InitialDelay = time.Minute
		b := NewBreaker(c, nil)
		if send(b, 1000, true); b.State() != Closed {
			t.Error("opened during the initial delay")
		}
		time.Sleep(time.Minute)
		if send(b, 100, true); b.State() != Open {
			t.Error("closed after it")
		}
	})
}

func TestSettingsOfBreakersThatMakeNoSenseAreRefused(t *testing.T) {
	for k, change := range []func(*BreakerConfig){
		func(c *BreakerConfig) { c.Failures = 0 }, func(c *BreakerConfig) { c.Failures = 101 },
		func(c *BreakerConfig) { c.Executions = 0 }, func(c *BreakerConfig) { c.Period = time.Millisecond },
		func(c *BreakerConfig) { c.Cooldown = 0 }, func(c *BreakerConfig) { c.RequestTimeout = 0 },
	} {
		c := breakerConfig(t)
		change(&c)
		if c.Validate() == nil {
			t.Error(fmt.Sprint("accepted: ", k))
		}
	}
}
