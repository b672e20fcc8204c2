package ruler

import (
	"fmt"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func TestGroupsAreSharedEvenlyAndOnlyThoseOfAFailedRulerMove(t *testing.T) {
	var members []Member
	for i := range 5 {
		members = append(members, Member{ID: fmt.Sprint("ruler-", i)})
	}
	fewer := append([]Member{}, members[:2]...)
	fewer = append(fewer, members[3:]...)
	count := map[string]int{}
	const groups = 5000
	for i := range groups {
		p := place{"t", fmt.Sprint("ns-", i%7)}
		name := fmt.Sprint("group-", i)
		before, _ := owner(members, p, name)
		count[before.ID]++
		if after, _ := owner(fewer, p, name); before.ID != "ruler-2" && after != before {
			t.Fatalf("%s moved from %s to %s", name, before.ID, after.ID)
		}
	}
	for id, n := range count {
		if n < groups/5*8/10 || n > groups/5*12/10 {
			t.Errorf("%s has %d of %d groups", id, n, groups)
		}
	}
	if _, ok := owner(nil, place{}, "g"); ok {
		t.Error("somebody owns a group of nobody")
	}
}

func TestATenantsShardIsStable(t *testing.T) {
	var members []Member
	for i := range 10 {
		members = append(members, Member{ID: fmt.Sprint("ruler-", i)})
	}
	used := map[string]bool{}
	for i := range 100 {
		id := tenant.ID(fmt.Sprint("tenant-", i))
		three := shard(members, id, 3)
		if len(three) != 3 {
			t.Fatalf("%d members", len(three))
		}
		four := shard(members, id, 4)
		for _, m := range three {
			used[m.ID] = true
			found := false
			for _, o := range four {
				found = found || o == m
			}
			if !found {
				t.Fatalf("%s: a larger shard lacks %s", id, m.ID)
			}
		}
	}
	if len(used) != 10 {
		t.Errorf("%d of 10 rulers are used", len(used))
	}
	if len(shard(members, "t", 0)) != 10 || len(shard(members, "t", 99)) != 10 {
		t.Error("no size, or one too large, is everybody")
	}
}
