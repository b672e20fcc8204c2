package ingester

import (
	"context"
	"fmt"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// churned pushes n series that are idle by now, and one that is not.
func churned(t *testing.T, s *site, id string, n int) (from *sender, want map[string]string) {
	t.Helper()
	from, want = newSender(s.Ingester), map[string]string{}
	for k := range n {
		m := metric("old", "k", fmt.Sprint(k))
		from.mustPush(t, id, point{m, base, float64(k)})
		want[m.String()] = fmt.Sprintf("0:%d", k)
	}
	s.now.Add(idle + minute)
	from.mustPush(t, id, point{metric("live"), base + idle + minute, 1})
	want[metric("live").String()] = fmt.Sprintf("%d:1", idle+minute)
	return from, want
}

func TestCrowdedProcessCutsIdleSeriesEarly(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) { c.EarlyCompaction.MinSeries = 12 }})
	from, want := churned(t, s, "t1", 10)
	s.keepHouse(t.Context())
	if n := s.counter(t, "amphora_ingester_memory_series"); n != 11 {
		t.Fatalf("memory_series = %g, want 11: the process is not crowded yet", n)
	}
	from.mustPush(t, "t1", point{metric("one more"), base + idle + minute, 1})
	want[metric("one more").String()] = fmt.Sprintf("%d:1", idle+minute)
	s.keepHouse(t.Context())
	if n := s.counter(t, "amphora_ingester_memory_series"); n != 2 {
		t.Fatalf("memory_series = %g, want the 2 active ones", n)
	}
	if n := s.counter(t, "amphora_ingester_tsdb_early_compaction_series_removed_total"); n != 10 {
		t.Errorf("early_compaction_series_removed = %g, want 10", n)
	}
	equal(t, s.dump(t, "t1"), want)
	if n := shippedBlocksOf(t, s.bucket, "t1"); n != 1 {
		t.Errorf("%d blocks shipped, want 1", n)
	}
	again := s.crashed(t, siteOptions{})
	equal(t, again.dump(t, "t1"), want)

	// A series that comes back is one again.
	old := metric("old", "k", "3")
	delete(from.bound, from.refs["t1"+old.String()])
	from.mustPush(t, "t1", point{old, base + idle + 2*minute, 7})
	want[old.String()] += fmt.Sprintf(" %d:7", idle+2*minute)
	equal(t, s.dump(t, "t1"), want)
}

func TestTenantOverItsThresholdIsCutEarlyIfThatSaves(t *testing.T) {
	view := limits.EarlyHeadCompactionOwnedSeriesThreshold.With(limits.View{}, 5)
	s := newSite(t, siteOptions{view: view})
	churned(t, s, "small", 3)
	s.now.Store(base)
	from := newSender(s.Ingester)
	var ps []point
	for k := range 20 {
		ps = append(ps, point{metric("live", "k", fmt.Sprint(k)), base + idle, 1})
	}
	churned(t, s, "full", 3)
	from.mustPush(t, "full", ps...)
	s.now.Store(base)
	churned(t, s, "big", 10)
	s.keepHouse(context.Background())
	for id, want := range map[string]uint64{"small": 4, "full": 24, "big": 1} {
		if got := s.lookup(tenant.ID(id)).head.NumSeries(); got != want {
			t.Errorf("%s has %d series in memory, want %d", id, got, want)
		}
	}
}

func TestEarlyCutsOfATenantKeepTheirDistance(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) { c.EarlyCompaction.MinSeries = 1 }})
	from, _ := churned(t, s, "t1", 3)
	s.keepHouse(t.Context())
	from.mustPush(t, "t1", point{metric("x"), base + idle + minute, 1})
	s.now.Add(idle + 2*minute)
	for range 3 {
		s.keepHouse(t.Context())
	}
	if n := s.counter(t, "amphora_ingester_tsdb_early_compactions_total"); n != 2 {
		t.Errorf("early_compactions = %g, want 2", n)
	}
}
