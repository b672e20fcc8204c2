package querier

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// threeZones is a querier over an ingester in each of three zones that asks zone a first.
func threeZones(t *testing.T) *cluster {
	c := newCluster(t, []*node{{zone: "a"}, {zone: "b"}, {zone: "c"}}, nil)
	c.zones()
	c.q.cfg.PreferAvailabilityZones = []string{"a"}
	return c
}

// zonesOf reads from a quorum and returns the zones that answered, in order, and how long it took.
func (c *cluster) zonesOf(ctx context.Context) ([]string, time.Duration, error) {
	begin := time.Now()
	got, err := ask(ctx, c.q, c.ring.set, 0, func(ctx context.Context, i ingesterpb.IngesterQueryClient) (string, error) {
		zone := i.(*node).zone //nolint:forcetypeassert // That is what the cluster has.
		_, err := i.Metadata(ctx, nil)
		return zone, err
	})
	slices.Sort(got)
	return got, time.Since(begin), err
}

// calls returns how often each was, since it was last called.
func (c *cluster) calls() (out []int) {
	for _, n := range c.nodes {
		n.mu.Lock()
		out = append(out, n.calls)
		n.calls = 0
		n.mu.Unlock()
	}
	return out
}

func (n *node) stop(hang bool) { n.mu.Lock(); n.hang = hang; n.mu.Unlock() }

// TestAnIngesterThatHangsCostsOneReadThreeSeconds is about zones: two are a quorum, and the third is asked when one
// of them has not answered for 3 s.
func TestAnIngesterThatHangsCostsOneReadThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := threeZones(t)
		read := func(want []string, took time.Duration, hedged float64) {
			t.Helper()
			got, d, err := c.zonesOf(t.Context())
			if err != nil || !slices.Equal(got, want) || d != took {
				t.Fatalf("%v answered after %s, %v; want %v after %s", got, d, err, want, took)
			}
			if n := testutil.ToFloat64(c.q.metrics.hedged); n != hedged {
				t.Fatalf("%g reads count as hedged, want %g", n, hedged)
			}
			synctest.Wait() // those that were not needed end
		}
		for range 10 { // healthy: a and one of the others, and nobody else
			got, d, err := c.zonesOf(t.Context())
			if err != nil || len(got) != 2 || got[0] != "a" || d != 0 {
				t.Fatalf("%v answered after %s, %v", got, d, err)
			}
		}
		if n := c.calls(); n[0] != 10 || n[1]+n[2] != 10 {
			t.Errorf("10 reads asked %v", n)
		}
		c.nodes[0].stop(true)
		read([]string{"b", "c"}, hedgeAfter, 1)
		for range 5 { // it is known by now
			read([]string{"b", "c"}, 0, 1)
		}
		if n := c.calls(); n[0] != 1 || n[1] != 6 || n[2] != 6 {
			t.Errorf("6 reads beside one that hangs asked %v", n)
		}
		time.Sleep(suspectFor)
		read([]string{"b", "c"}, hedgeAfter, 2) // it is tried again, and still hangs
		c.nodes[0].stop(false)
		time.Sleep(suspectFor)
		c.calls()
		if got, d, err := c.zonesOf(t.Context()); err != nil || d != 0 || got[0] != "a" {
			t.Errorf("healthy again: %v after %s, %v", got, d, err)
		}
	})
}

// TestTwoZonesThatHangAreNoQuorum has the read wait for its own end, and no longer.
func TestTwoZonesThatHangAreNoQuorum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := threeZones(t)
		c.nodes[0].stop(true)
		c.nodes[1].stop(true)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errs.New(errs.Unavailable, "out of time"))
		defer cancel()
		got, took, err := c.zonesOf(ctx)
		if got != nil || errs.KindOf(err) != errs.Unavailable || err.Error() != "out of time" || took != 20*time.Second {
			t.Errorf("%v after %s, %v", got, took, err)
		}
		if n := c.calls(); n[0] != 1 || n[1] != 1 || n[2] != 1 {
			t.Errorf("each is to be asked once: %v", n)
		}
	})
}

// TestAFailureIsNoHedge asks the third zone at once when one fails, and does not count it.
func TestAFailureIsNoHedge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := threeZones(t)
		c.nodes[0].fail(errs.Wrap(errs.Unavailable, errDown))
		got, took, err := c.zonesOf(t.Context())
		if err != nil || !slices.Equal(got, []string{"b", "c"}) || took != 0 {
			t.Errorf("%v after %s, %v", got, took, err)
		}
		if n := testutil.ToFloat64(c.q.metrics.hedged); n != 0 {
			t.Errorf("%g reads count as hedged", n)
		}
	})
}
