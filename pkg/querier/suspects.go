package querier

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/ring"
)

// suspectFor is how long who was slow or failed is asked last.
const suspectFor = 15 * time.Second

// suspects remembers the ingesters that were slow or failed lately, or the store-gateways that were
// silent, so that not every read has to find out again. To be asked last costs nothing in correctness:
// a quorum is a quorum, and every owner of a block has all of it.
type suspects struct {
	mu    sync.Mutex // guards since
	since map[string]time.Time
}

// note remembers how a call to addr went.
func (s *suspects) note(addr string, bad bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad {
		if s.since == nil {
			s.since = map[string]time.Time{}
		}
		s.since[addr] = now
	} else {
		delete(s.since, addr)
	}
}

// now returns who is suspected; nil if nobody is.
func (s *suspects) now(now time.Time) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[string]bool
	for addr, at := range s.since {
		if now.Sub(at) >= suspectFor {
			delete(s.since, addr)
			continue
		}
		if out == nil {
			out = map[string]bool{}
		}
		out[addr] = true
	}
	return out
}

// zones orders zones in which nobody is suspected before the others, of each kind those that are
// preferred before the rest, and otherwise in any order.
func (s *suspects) zones(instances []ring.InstanceDesc, preferred []string, now time.Time) ring.ZoneSorter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.since) == 0 && len(preferred) == 0 {
		return nil // the ring shuffles by itself
	}
	bad := map[string]bool{}
	for i := range instances {
		if at, ok := s.since[instances[i].Addr]; ok {
			if now.Sub(at) < suspectFor {
				bad[instances[i].Zone] = true
			} else {
				delete(s.since, instances[i].Addr)
			}
		}
	}
	return func(zones []string) []string {
		rand.Shuffle(len(zones), func(i, j int) { zones[i], zones[j] = zones[j], zones[i] })
		slices.SortStableFunc(zones, func(a, b string) int {
			return cmp.Or(first(!bad[a], !bad[b]), first(slices.Contains(preferred, a), slices.Contains(preferred, b)))
		})
		return zones
	}
}

// first compares so that what a property holds of comes first.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// complainEvery is how often the same complaint is logged.
const complainEvery = time.Minute

// occasional is something done at most once every complainEvery.
type occasional struct{ last atomic.Int64 }

// due says whether it is time to do it, which the caller then does.
func (o *occasional) due(now time.Time) bool {
	last := o.last.Load()
	return now.UnixNano()-last >= int64(complainEvery) && o.last.CompareAndSwap(last, now.UnixNano())
}
