package distributor

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// budgetBytes is so much that the memory of the test itself does not count.
const budgetBytes = 1 << 50

func newBudget() *memory.Ledger {
	return memory.New(memory.Limits{Process: budgetBytes, Go: budgetBytes}, memory.Deps{})
}

func TestPushesAreRefusedLastWhenMemoryIsShort(t *testing.T) {
	l := newBudget()
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1, memory: l})
	c.mustPush(c.series("up"))
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 90)
	c.mustPush(c.series("up"), c.series("down"))
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 6)
	if _, err := c.push(c.v1(c.series("up"))); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("err = %v", err)
	}
	l.Account(memory.Chunks).Release(budgetBytes / 100 * 6)
	c.mustPush(c.series("up"))
	if n := l.Account(memory.Bodies).Held(); n != 0 {
		t.Errorf("%d bytes of bodies are held", n)
	}
}

func TestTheTableStopsGrowingWhenMemoryIsShortAndReturnsItAll(t *testing.T) {
	l := newBudget()
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1, memory: l})
	scrape := func(from, to int) (all []prompb.TimeSeries) {
		for i := from; i < to; i++ {
			all = append(all, c.series(fmt.Sprintf("m,i=%d", i)))
		}
		return all
	}
	c.mustPush(scrape(0, 1000)...)
	held := int(l.Account(memory.Table).Held())
	if held < 1000*rowBytes || held > 2000*entryBytes {
		t.Errorf("%d bytes held for 1000 series", held)
	}
	l.Account(memory.Chunks).Take(budgetBytes / 100 * 80)
	for range 3 {
		c.mustPush(scrape(1000, 1500)...)
	}
	if series, _ := c.tenants.byID["t1"].table.size(); series != 1000 {
		t.Errorf("%d series remembered", series)
	}
	c.advance(tenantIdle + time.Minute)
	c.tenants.sweep(c.tick(c.deps.Now()))
	if n := l.Account(memory.Table).Held(); n != 0 {
		t.Errorf("%d bytes held for no tenant", n)
	}
}

// Of two refusals the one that passes is told: told of the other, a sender would drop the request.
func TestARefusalThatPassesIsToldRatherThanOneForGood(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.ingesters["ingester-0"].set(func(g *ingester) {
		g.answer = func() (frame.Result, bool) {
			return frame.Result{Outcome: frame.Stored, Rejected: 1, Kind: errs.Unavailable, Message: "short"}, true
		}
	})
	_, err := c.push(c.v1(c.series("up"), c.series("bad-name")))
	if errs.KindOf(err) != errs.Unavailable {
		t.Errorf("err = %v", err)
	}
	c.ingesters["ingester-0"].set(func(g *ingester) { g.answer = nil })
	if _, err = c.push(c.v1(c.series("up"), c.series("bad-name"))); errs.KindOf(err) != errs.Invalid {
		t.Errorf("err = %v", err)
	}
}
