package querier

import (
	"slices"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"
)

func TestASlowIngestersZoneIsAskedLastForAWhile(t *testing.T) {
	var s suspects
	now := time.Now()
	instances := []ring.InstanceDesc{{Addr: "1", Zone: "a"}, {Addr: "2", Zone: "b"}, {Addr: "3", Zone: "b"}, {Addr: "4", Zone: "c"}}
	lasts := func(at time.Time) map[string]bool {
		out := map[string]bool{}
		for range 100 {
			sort := s.zones(instances, nil, at)
			if sort == nil {
				return nil
			}
			zones := sort([]string{"a", "b", "c"})
			if len(slices.Compact(slices.Sorted(slices.Values(zones)))) != 3 {
				t.Fatalf("zones %v", zones)
			}
			out[zones[2]] = true
		}
		return out
	}
	if l := lasts(now); l != nil {
		t.Errorf("nobody is suspected, and %v is last", l)
	}
	s.note("3", true, now)
	if l := lasts(now.Add(suspectFor - 1)); len(l) != 1 || !l["b"] {
		t.Errorf("last are %v, want b", l)
	}
	if l := lasts(now.Add(suspectFor)); len(l) != 0 && len(l) != 3 {
		t.Errorf("afterwards last are %v, want any", l)
	}
	s.note("1", true, now)
	s.note("1", false, now)
	if l := lasts(now); l != nil {
		t.Errorf("it answered well, and %v is last", l)
	}
}

func TestThePreferredZonesAreAskedFirstUnlessTheyAreSuspected(t *testing.T) {
	var s suspects
	now := time.Now()
	instances := []ring.InstanceDesc{{Addr: "1", Zone: "a"}, {Addr: "2", Zone: "b"}, {Addr: "3", Zone: "c"}}
	firsts := func() map[string]bool {
		out := map[string]bool{}
		for range 100 {
			out[s.zones(instances, []string{"b", "c"}, now)([]string{"a", "b", "c"})[0]] = true
		}
		return out
	}
	if f := firsts(); f["a"] || !f["b"] || !f["c"] {
		t.Errorf("first are %v, want b and c", f)
	}
	s.note("2", true, now)
	if f := firsts(); len(f) != 1 || !f["c"] {
		t.Errorf("first are %v, want c: b is suspected", f)
	}
}
