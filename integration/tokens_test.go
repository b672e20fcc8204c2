package integration

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestIngestersJoinInOrderAndShareEvenly has ingesters with numbers start in the wrong order.
func TestIngestersJoinInOrderAndShareEvenly(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Flags: append(busyFlags(),
		"-ingester.ring.token-generation-strategy=spread-minimizing", "-ingester.ring.spread-minimizing-zones=a,b",
		"-ingester.ring.spread-minimizing-join-ring-in-order"),
		Nodes: []harness.Spec{{Name: "in-a-0", Target: "ingester", Zone: "a"}, {Name: "in-b-0", Target: "ingester", Zone: "b"}}})
	second, err := c.Add(harness.Spec{Name: "in-a-2", Target: "ingester", Zone: "a"})
	must(t, err)
	pause(ctx, t, 3*time.Second)
	if second.Ready(ctx) == nil {
		t.Error("2 has joined before 1")
	}
	first, err := c.Add(harness.Spec{Name: "in-a-1", Target: "ingester", Zone: "a"})
	must(t, err)
	must(t, first.WaitReady(ctx))
	must(t, second.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), "in-a-0", "in-a-1", "in-a-2", "in-b-0")
	members, err := ringOf(ctx, first.URL("/ingester/ring"))
	must(t, err)
	for n := range 3 {
		if m := members[fmt.Sprint("in-a-", n)]; math.Abs(m.Ownership-100./3) > 1 || len(m.Tokens) != 512 {
			t.Errorf("%s has %d tokens and %g %% of its zone", m.ID, len(m.Tokens), m.Ownership)
		}
	}
}
