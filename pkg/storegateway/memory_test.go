package storegateway

import (
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

func TestCallsAreRefusedWhenTheProcessIsShortOfMemory(t *testing.T) {
	const budget = 1 << 50 // beside which the memory of the test itself does not count
	l := memory.New(memory.Limits{Process: budget, Go: budget}, memory.Deps{})
	w := newWorld(t, nil)
	w.g.memory = l.Account(memory.Queries)
	a := w.block(0, 0, 1)
	l.Account(memory.Chunks).Take(budget / 100 * 90)
	if _, err := w.ask(nil, a); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("short of memory: %v, want Unavailable", err)
	}
	l.Account(memory.Chunks).Release(budget / 100 * 90)
	if _, err := w.ask(nil, a); err != nil {
		t.Error(err)
	}
}

func TestACallMayTakeSoMuchMemory(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxQueryBytes = 64 << 10 })
	small, large := w.block(0, 0, 10), w.block(0, 0, 900)
	if _, err := w.ask(nil, small); err != nil {
		t.Error(err)
	}
	if _, err := w.ask(nil, large); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("900 series in 64 KiB: %v, want TooLarge", err)
	}
	if _, err := w.ask(nil, small); err != nil {
		t.Errorf("after a call that was refused: %v", err)
	}
}
