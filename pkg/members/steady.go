package members

import (
	"time"

	"github.com/grafana/dskit/ring"
)

// Steady returns r, whose replicas go to different zones, with shards that have as many members in each
// zone whatever zones there are. A shard's size is otherwise divided by the zones that the ring shows: a
// tenant of three would be in two members of each of two zones while the third is gone, and in one of
// each when it is back. Reads would look to that one alone, and miss what the other has.
func Steady(r ring.ReadRing) ring.ReadRing { return steady{r} }

type steady struct{ ring.ReadRing }

// size is what a ring of so many zones divides to what each zone has if there are as many as replicas. With
// more of them, a shard has more members than asked for.
func (s steady) size(size int) int {
	if size <= 0 {
		return size
	}
	replicas := s.ReplicationFactor()
	return (size + replicas - 1) / replicas * s.ZonesCount()
}

// ShuffleShard implements ring.ReadRing.
func (s steady) ShuffleShard(identifier string, size int) ring.ReadRing {
	return s.ReadRing.ShuffleShard(identifier, s.size(size))
}

// ShuffleShardWithLookback implements ring.ReadRing.
func (s steady) ShuffleShardWithLookback(identifier string, size int, lookback time.Duration, now time.Time) ring.ReadRing {
	return s.ReadRing.ShuffleShardWithLookback(identifier, s.size(size), lookback, now)
}
