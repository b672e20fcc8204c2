package ingester

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

func points(at int64, names ...string) []point {
	var out []point
	for _, n := range names {
		out = append(out, point{metric(n), at, 1})
	}
	return out
}

func (s *sender) wantRefused(t *testing.T, tenant string, n int, id string, points ...point) frame.Result {
	t.Helper()
	res := s.push(context.Background(), s.frame(tenant, points...))
	if res.Outcome != frame.Stored || res.Rejected != n || n > 0 && !strings.Contains(res.Message, "(err-amphora-"+id+")") {
		t.Fatalf("push: %+v, want %d refused with %s", res, n, id)
	}
	return res
}

func TestActiveLimitRefusesNewSeriesAndKeepsKnownOnes(t *testing.T) {
	s := newSite(t, siteOptions{view: limits.MaxActiveSeriesPerUser.With(limits.View{}, 3)})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", points(base, "a", "b", "c")...)
	res := from.wantRefused(t, "t1", 2, "max-active-series", points(base+1000, "a", "d", "b", "e")...)
	if res.Kind != errs.RateLimited || !strings.Contains(res.Message, "2 samples of this request") || !strings.Contains(res.Message, "limit of 3 active series") {
		t.Errorf("refusal: %+v", res)
	}
	if n := s.counter(t, "amphora_discarded_samples_total", "reason", "per_user_active_series_limit", "user", "t1"); n != 2 {
		t.Errorf("discarded = %g, want 2", n)
	}
	if n := s.counter(t, "amphora_ingester_memory_series"); n != 3 {
		t.Errorf("memory_series = %g, want 3: nothing of a refused series is stored", n)
	}
	// Another stream has other references, but means the same series.
	newSender(s.Ingester).mustPush(t, "t1", points(base+2000, "c", "a")...)
	newSender(s.Ingester).mustPush(t, "t2", points(base, "d")...)
}

func TestActiveLimitMakesRoomAsSeriesBecomeIdle(t *testing.T) {
	s := newSite(t, siteOptions{view: limits.MaxActiveSeriesPerUser.With(limits.View{}, 2)})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", points(base, "a", "b")...)
	s.now.Add(idle + minute) // nobody has looked who is idle
	from.mustPush(t, "t1", points(base+idle, "c", "b")...)
	from.wantRefused(t, "t1", 1, "max-active-series", points(base+idle+1000, "b", "a")...)
	if n := s.counter(t, "amphora_ingester_active_series", "user", "t1"); n != 2 {
		t.Errorf("active_series = %g, want 2", n)
	}
}

func TestActiveLimitHoldsUnderChurn(t *testing.T) {
	const most, perScrape = 100, 10
	s := newSite(t, siteOptions{view: limits.MaxActiveSeriesPerUser.With(limits.View{}, most)})
	from := newSender(s.Ingester)
	refused := 0
	for scrape := range int64(60) { // of a minute each, with new series in all of them
		var names []string
		for k := range perScrape {
			names = append(names, fmt.Sprintf("s%d", scrape*perScrape+int64(k)))
		}
		refused += from.push(context.Background(), from.frame("t1", points(base+scrape*minute, names...)...)).Rejected
		s.now.Add(minute)
		if n := s.lookup("t1").activity.counts().active; n > most {
			t.Fatalf("scrape %d: %d active series, the limit is %d", scrape, n, most)
		}
	}
	// In 20 minutes 200 series come and 100 have room: half of them, but for the coarse clock.
	if lo, hi := 60*perScrape*4/10, 60*perScrape*6/10; refused < lo || refused > hi {
		t.Errorf("%d samples refused, want %d to %d", refused, lo, hi)
	}
}

// half places the series with the lower half of all tokens here.
func half() *Place {
	return &Place{Ingesters: 2, Copies: 1, Owned: ring.TokenRanges{0, 1<<31 - 1}}
}

// tokenFrame defines n series whose tokens are as given, from name first on.
func tokenFrame(first, n int, at int64, token func(int) uint32) *frame.Frame {
	f := &frame.Frame{Tenant: "t1"}
	for k := first; k < first+n; k++ {
		f.Defs = append(f.Defs, frame.Def{Ref: frame.MakeRef(uint32(k), 0), Token: token(k), Labels: metric(fmt.Sprintf("s%d", k))})
		f.Refs, f.Times, f.Values = append(f.Refs, frame.MakeRef(uint32(k), 0)), append(f.Times, at), append(f.Values, 1)
	}
	return f
}

func TestSeriesThatMovedAwayDoNotCountForLimits(t *testing.T) {
	for name, view := range map[string]limits.View{
		"memory": limits.MaxGlobalSeriesPerUser.With(limits.View{}, 100),
		"active": limits.MaxActiveSeriesPerUser.With(limits.MaxGlobalSeriesPerUser.With(limits.View{}, 0), 100),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, siteOptions{view: view, place: &Place{Ingesters: 1, Copies: 1}})
			st := s.OpenStream()
			push := func(f *frame.Frame) frame.Result { return st.Push(context.Background(), f) }
			spread := func(k int) uint32 { return uint32(k%2) << 31 } // every other one stays
			if res := push(tokenFrame(0, 100, base, spread)); res.Rejected != 0 {
				t.Fatalf("%+v", res)
			}
			if res := push(tokenFrame(100, 1, base, spread)); res.Rejected != 1 {
				t.Fatalf("over the limit: %+v", res)
			}
			// Another ingester comes, which takes half of the series and half of the limit.
			s.at.Store(half())
			s.refreshActivity()
			if n := s.counter(t, "amphora_ingester_owned_series", "user", "t1"); n != 50 {
				t.Errorf("owned_series = %g, want 50", n)
			}
			if res := push(tokenFrame(101, 1, base, func(int) uint32 { return 7 })); res.Rejected != 1 {
				t.Errorf("half of the limit is used up: %+v", res)
			}
			// The tenant's limit is raised, and there is room again although more series than that are in memory.
			more := view
			if name == "memory" {
				more = limits.MaxGlobalSeriesPerUser.With(view, 110)
			} else {
				more = limits.MaxActiveSeriesPerUser.With(view, 110)
			}
			s.view.Store(&more)
			if res := push(tokenFrame(200, 6, base, func(int) uint32 { return 7 })); res.Rejected != 1 {
				t.Errorf("room for 5 more: %+v", res)
			}
			// The other ingester leaves: its series come back here, before anybody looked at the ring.
			s.at.Store(&Place{Ingesters: 1, Copies: 1})
			if res := push(tokenFrame(300, 5, base, func(int) uint32 { return 7 })); res.Rejected != 0 {
				t.Errorf("alone again: %+v", res)
			}
		})
	}
}

func TestShareFollowsIngestersAndTokens(t *testing.T) {
	most := ^uint32(0)
	for _, c := range []struct {
		place  *Place
		global int
		want   int
	}{
		{nil, 100, 100},
		{nil, 0, 0},
		{&Place{Ingesters: 3, Copies: 3}, 100, 100},
		{&Place{Ingesters: 6, Copies: 3}, 100, 50},
		{&Place{Ingesters: 6, Copies: 3}, 1, 1},
		{&Place{Ingesters: 6, Copies: 3}, 0, 0},
		{&Place{Ingesters: 3, Copies: 1}, 100, 34},
		{&Place{Ingesters: 4, Copies: 1, Owned: ring.TokenRanges{0, most / 2}}, 100, 50},
		{&Place{Ingesters: 4, Copies: 1, Owned: ring.TokenRanges{0, 10}}, 100, 25},
	} {
		if got := c.place.share(c.global); got != c.want {
			t.Errorf("share of %d at %+v = %d, want %d", c.global, c.place, got, c.want)
		}
	}
}
