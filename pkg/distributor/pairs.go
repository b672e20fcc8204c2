package distributor

import (
	"sync"
	"sync/atomic"
)

// What one tenant's pairs may be before they are numbered anew. Replicas may be named after pods,
// of which there is a new one every day.
const (
	maxPairs     = 10_000
	maxPairBytes = 1 << 20
)

// pair is a replica of a cluster.
type pair struct{ cluster, replica string }

// pairs numbers the replicas that series of a tenant came from, so that what is remembered of a
// series can name its replica in four bytes. Numbers begin at 1.
type pairs struct {
	full atomic.Bool

	mu    sync.RWMutex // guards all below
	of    map[pair]uint32
	list  []pair
	bytes int
}

func newPairs() *pairs { return &pairs{of: map[pair]uint32{}} }

// outgrown says whether further pushes need a fresh numbering. s may be nil.
func (s *pairs) outgrown() bool { return s != nil && s.full.Load() }

// number returns the number of a pair; added says whether it is new.
func (s *pairs) number(cluster, replica []byte) (n uint32, added bool) {
	s.mu.RLock()
	n = s.of[pair{string(cluster), string(replica)}]
	s.mu.RUnlock()
	if n != 0 {
		return n, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := pair{string(cluster), string(replica)}
	if n = s.of[p]; n != 0 {
		return n, false
	}
	s.list = append(s.list, p)
	s.of[p] = uint32(len(s.list))
	s.bytes += len(cluster) + len(replica)
	s.full.Store(len(s.list) >= maxPairs || s.bytes >= maxPairBytes)
	return uint32(len(s.list)), true
}

// at returns pair n.
func (s *pairs) at(n uint32) pair {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.list[n-1]
}
