package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// oldVariable is the path of an older version's binary.
const oldVariable = "AMPHORA_TEST_OLD"

// TestVersionsMix goes from an older version to this one, zone by zone, under load, back again, as one does
// who regrets it, and on to this one for good. Between two steps the versions work together for a while.
// Neither writers nor readers notice, and what one version wrote the other reads, on disk and in the bucket.
func TestVersionsMix(t *testing.T) {
	old := os.Getenv(oldVariable)
	if old == "" {
		t.Skip("needs the binary of an older version in " + oldVariable + ": make mixed")
	}
	ctx := bounded(t, 15*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: old, Flags: busyFlags()})
	everybody := []string{"ingester-a", "ingester-b", "ingester-c"}
	settled(ctx, t, c.Nodes(), everybody...)
	j, end := busy(ctx, frontDoor(ctx, c, "distributor"), frontDoor(ctx, c, "querier"))
	pause(ctx, t, 3*time.Second)
	j.resetGap()
	for _, step := range []struct{ name, binary string }{{"up", binary(ctx, t)}, {"back", old}, {"up again", binary(ctx, t)}} {
		for _, zone := range []string{"a", "b", "c"} {
			all(t, inZone(c, zone), func(n *harness.Node) error { return become(ctx, n, step.binary) })
			settled(ctx, t, c.Nodes(), everybody...)
			pause(ctx, t, 3*time.Second)
		}
		if r := call(ctx, t, http.MethodPost, c.Node("ingester-a").URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
			t.Fatalf("%s: the flush answered %s", step.name, r)
		}
		t.Logf("%s: longest gap so far %s", step.name, j.gap())
	}
	gap := j.gap()
	end().good(t)
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	if given > 0 || gap > 10*time.Second {
		t.Errorf("%d samples were given up, and none was taken for %s", given, gap)
	}
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

func become(ctx context.Context, n *harness.Node, binary string) error {
	if err := n.Process.Stop(); err != nil {
		return err
	}
	n.Become(binary)
	return errors.Join(n.Start(), n.WaitReady(ctx))
}
