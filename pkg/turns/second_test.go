package turns

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoHasATurnHasASecondOneIfNobodyElseWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(3)
		_, a, endA := g.Begin(by(t.Context(), "a", 0))
		b, endB, ok := a.Second()
		if !ok || b == nil {
			t.Fatal("two of three places are free, and none is to be had")
		}
		c, endC, ok := a.Second()
		if !ok || c == nil {
			t.Fatal("one of three places is free, and is not to be had")
		}
		if _, _, ok := a.Second(); ok {
			t.Error("four turns of three places")
		}
		endB()
		_, endB, ok = a.Second()
		if !ok {
			t.Error("a place that was given back is not to be had")
		}
		endC()
		endB()
		endA()
		_, _, endO := g.Begin(by(t.Context(), "other", 0))
		endO()
		_, a, endA = g.Begin(by(t.Context(), "a", 0))
		_, endB, _ = a.Second()
		if _, _, ok := a.Second(); ok {
			t.Error("nothing is left to a tenant that asked a moment ago")
		}
		time.Sleep(2 * recent)
		if _, endC, ok = a.Second(); !ok {
			t.Error("a place is kept for a tenant that does not come")
		}
		for _, end := range []func(){endC, endB, endA} {
			end()
		}
		settled(t, g, 3)
	})
}

func TestThereIsNoSecondTurnWhileSomebodyWaitsOrOnOneProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(2)
		_, a, endA := g.Begin(by(t.Context(), "a", 0))
		_, endB, ok := a.Second()
		if !ok {
			t.Fatal("no second turn")
		}
		done := make(chan struct{})
		go func() {
			_, _, end := g.Begin(by(t.Context(), "b", 0))
			end()
			close(done)
		}()
		synctest.Wait()
		if _, _, ok := a.Second(); ok {
			t.Error("a tenant that waits was overtaken")
		}
		endB()
		<-done
		endA()
		settled(t, g, 2)
		_, one, end := gate(1).Begin(by(t.Context(), "a", 0))
		if _, _, ok := one.Second(); ok {
			t.Error("two turns on one processor")
		}
		end()
		if _, end, ok := (*Turn)(nil).Second(); !ok {
			t.Error("without a gate nobody waits")
		} else {
			end()
		}
	})
}
