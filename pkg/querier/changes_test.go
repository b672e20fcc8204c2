package querier

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestChangesAreThoseOfAllIngestersAndOfDeletions(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	c := newCluster(t, nodes, nil)
	c.ring.set.MaxErrors, c.ring.set.MaxUnavailableZones = 1, 0
	c.q.deps.Deletions = func(_ context.Context, id tenant.ID) ([]changes.Change, error) {
		return []changes.Change{{MinTime: 1, MaxTime: 2, At: 3}}, nil
	}
	for i, n := range nodes {
		n.late = &ingesterpb.TenantStatsResponse{Now: int64(1000 - i), LateSince: int64(10 * (i + 1)), Late: []*ingesterpb.LateWrite{{MinTime: int64(i), MaxTime: 9, At: 500}}}
	}
	log, err := c.q.Changes(asTenant(t))
	if err != nil {
		t.Fatal(err)
	}
	if log.Since != 20 || log.Time != 998 || len(log.Changes) != 4 {
		t.Errorf("%+v; want what two of three know since 20, all that is known, and the deletion", log)
	}
	nodes[0].fail(errDown)
	if log, err := c.q.Changes(asTenant(t)); err != nil || log.Since != 30 {
		t.Errorf("with one node down: %+v, %v; want since 30", log, err)
	}
	nodes[1].fail(errDown)
	if _, err := c.q.Changes(asTenant(t)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("with two nodes down: %v, want Unavailable", err)
	}
}

func TestOneZoneMayNotKnowWhatIsLate(t *testing.T) {
	set := ring.ReplicationSet{ZoneAwarenessEnabled: true, MaxUnavailableZones: 1,
		Instances: []ring.InstanceDesc{{Zone: "a"}, {Zone: "a"}, {Zone: "b"}, {Zone: "b"}, {Zone: "c"}, {Zone: "c"}}}
	none := int64(math.MaxInt64)
	for _, c := range []struct {
		since []int64
		want  int64
	}{
		{[]int64{1, 2, 3, 4, 5, 6}, 4},
		{[]int64{none, none, 3, 4, 5, 6}, 6},
		{[]int64{none, 1, none, 4, 5, 6}, none},
	} {
		if got := covered(set, c.since); got != c.want {
			t.Errorf("%v is complete since %d, want %d", c.since, got, c.want)
		}
	}
	if got := covered(ring.ReplicationSet{Instances: set.Instances[:1]}, []int64{7}); got != 7 {
		t.Errorf("a single ingester is complete since %d, want 7", got)
	}
}

func TestAHungIngesterHoldsUpNobodyWhoAsksWhatChanged(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	c := newCluster(t, nodes, nil)
	c.ring.set.MaxErrors, c.ring.set.MaxUnavailableZones = 1, 0
	for _, n := range nodes {
		n.late = &ingesterpb.TenantStatsResponse{Now: 1, LateSince: 1}
	}
	nodes[2].mu.Lock()
	nodes[2].hang = true
	nodes[2].mu.Unlock()
	begin := time.Now()
	if _, err := c.q.Changes(asTenant(t)); err != nil {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}
