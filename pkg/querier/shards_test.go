package querier

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// asked is on how many ingesters a read looks for the tenant whose shard has the size now.
func (c *cluster) asked(t *testing.T, size int) int {
	t.Helper()
	c.limits = limits.IngestionTenantShardSize.With(c.limits, size)
	now := c.now.UnixMilli()
	if _, err := c.q.scope(asTenant(t), now-1, now); err != nil {
		t.Fatal(err)
	}
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	return c.ring.sharded[len(c.ring.sharded)-1]
}

func shardedCluster(t *testing.T) *cluster {
	var nodes []*node
	for _, zone := range []string{"a", "b", "c", "d"} {
		nodes = append(nodes, newNode(t, zone))
		nodes[len(nodes)-1].holds = []string{"other"}
	}
	return newCluster(t, nodes, nil)
}

func (c *cluster) survey(t *testing.T) {
	c.now = c.now.Add(surveyEvery)
	c.q.shards.look(t.Context(), c.q)
}

func TestATenantIsLookedForOnItsShardOnceAllIngestersWereAsked(t *testing.T) {
	c := shardedCluster(t)
	c.nodes[1].holds = []string{"t1"}
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("before a survey on %d, want all", n)
	}
	c.nodes[2].fail(errDown)
	c.survey(t)
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("one did not answer: on %d, want all", n)
	}
	c.nodes[2].fail(nil)
	c.ring.silent = 1
	c.survey(t)
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("one is silent: on %d, want all", n)
	}
	c.ring.silent = 0
	c.survey(t)
	if n := c.asked(t, 3); n != 3 {
		t.Errorf("all answered: on %d, want 3", n)
	}
	if n := testutil.ToFloat64(c.q.metrics.surveys); n != 3 {
		t.Errorf("%v surveys, want 3", n)
	}
	c.q.cfg.ShuffleSharding = false
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("switched off: on %d, want all", n)
	}
}

func TestATenantFoundOutsideItsShardIsLookedForEverywhere(t *testing.T) {
	c := shardedCluster(t)
	c.nodes[3].holds = []string{"other", "t1"}
	c.asked(t, 3)
	c.survey(t)
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("on %d, want all", n)
	}
	c.nodes[3].holds = nil
	for range 14 {
		c.now = c.now.Add(time.Hour)
		c.asked(t, 3)
	}
	c.survey(t)
	if n := c.asked(t, 3); n != 3 {
		t.Errorf("14 h later on %d, want 3", n)
	}
}

func TestAShardThatBecameSmallerIsRemembered(t *testing.T) {
	c := shardedCluster(t)
	c.asked(t, 4)
	c.survey(t)
	for _, s := range []struct{ size, want int }{{4, 4}, {2, 4}, {3, 4}} {
		if n := c.asked(t, s.size); n != s.want {
			t.Errorf("size %d: on %d, want %d", s.size, n, s.want)
		}
	}
	c.now = c.now.Add(12 * time.Hour)
	if n := c.asked(t, 3); n != 4 {
		t.Errorf("12 h later on %d, want 4", n)
	}
	c.now = c.now.Add(2 * time.Hour)
	c.survey(t)
	if n := c.asked(t, 3); n != 3 {
		t.Errorf("14 h later on %d, want 3", n)
	}
	// A change that no read sees is seen all the same.
	c.limits = limits.IngestionTenantShardSize.With(c.limits, 0)
	c.survey(t)
	if n := c.asked(t, 3); n != 0 {
		t.Errorf("after a time without a shard on %d, want all", n)
	}
}
