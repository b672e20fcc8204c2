package querier

import (
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestChangesAreThoseOfBlocksThatOperatorsHid(t *testing.T) {
	n := newNode(t, "")
	add(t, n, reference(5, 50))
	s := withBlocks(t, n)
	tb := objstore.NewPrefixedBucket(s.bkt, "t1")
	scan, err := block.ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, at := scan.Index.Blocks[0], time.Unix(1_000_000, 0)
	scan.Index.Alter(b.ID, at)
	if err := block.WriteBucketIndex(t.Context(), tb, scan.Index); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, "a")
	a.late = &ingesterpb.TenantStatsResponse{Now: 1, LateSince: 1}
	log, err := newCluster(t, []*node{a}, s).q.Changes(asTenant(t))
	if err != nil {
		t.Fatal(err)
	}
	// An answer that was made before all queriers know of it may still have the block's samples.
	want := at.Add(time.Hour).UnixMilli()
	if len(log.Changes) != 1 || log.Changes[0].MinTime != b.MinTime || log.Changes[0].MaxTime != b.MaxTime || log.Changes[0].At != want {
		t.Errorf("changes %+v; want the times of %+v at %d", log.Changes, b, want)
	}
}
