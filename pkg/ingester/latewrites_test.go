package ingester

import (
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestLateSamplesAreToldByWhenTheyCameAndTheirTime(t *testing.T) {
	s := newSite(t, siteOptions{view: limits.OutOfOrderTimeWindow.With(limits.View{}, 3*time.Hour)})
	a := newSender(s.Ingester)
	now := s.now.Load()
	ask := func(id tenant.ID) *ingesterpb.TenantStatsResponse {
		t.Helper()
		out, err := s.TenantStats(tenant.Inject(t.Context(), id), &ingesterpb.TenantStatsRequest{LateOnly: true})
		if err != nil || out.Now != s.now.Load() || out.LateSince != now {
			t.Fatalf("%v, %v", out, err)
		}
		return out
	}
	a.mustPush(t, "t1", point{metric("a"), now, 1}, point{metric("b"), now - 30_000, 1})
	if got := ask("t1"); len(got.Late) != 0 {
		t.Errorf("samples of the last minute are late: %v", got.Late)
	}
	late := now - 7_200_000
	a.mustPush(t, "t1", point{metric("c"), late, 1}, point{metric("d"), late + 1, 1}, point{metric("a"), now + 1, 1})
	got := ask("t1")
	if len(got.Late) != 1 || got.Late[0].MinTime > late || got.Late[0].MaxTime < late+1 || got.Late[0].At != now {
		t.Errorf("late: %v, want the stretch of %d at %d", got.Late, late, now)
	}
	s.later(5 * minute)
	a.mustPush(t, "t1", point{metric("c"), late + 2, 1})
	if got := ask("t1"); len(got.Late) != 1 || got.Late[0].At != now+5*minute {
		t.Errorf("late: %v, want the later time", got.Late)
	}
	if got := ask("t2"); len(got.Late) != 0 {
		t.Errorf("another tenant sees %v", got.Late)
	}
}

func TestTheMemoryOfLateSamplesIsBoundedAndSaysWhatItForgot(t *testing.T) {
	table := &lateTable{since: 1}
	for i := range int64(10 * mostLateStretches) {
		table.note(i, 100+i)
	}
	if n := len(table.stretches); n > mostLateStretches {
		t.Errorf("%d stretches are remembered", n)
	}
	for _, w := range table.stretches {
		if w.at < table.since {
			t.Errorf("a late write at %d is remembered, and nothing before %d is said to be", w.at, table.since)
		}
	}
	if n := int64(len(table.stretches)); table.since != 100+10*mostLateStretches-n {
		t.Errorf("nothing before %d is said to be known with %d stretches", table.since, n)
	}
}
