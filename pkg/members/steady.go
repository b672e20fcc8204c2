package members

import (
	"time"

	"github.com/grafana/dskit/ring"
)

// Steady returns r, whose replicas go to different zones, with shards that do not grow in the other
// zones while one is not there. A shard's size is divided by the zones that the ring shows: without
// this, a tenant of three is in two members of each of two zones while the third is gone, and in one of
// each when it is back. Reads would look to that one alone, and miss what the other has.
func Steady(r ring.ReadRing) ring.ReadRing { return steady{r} }

type steady struct{ ring.ReadRing }

// size is what the shard of a ring with as many zones as replicas has in the zones that there are.
func (s steady) size(size int) int {
	zones, replicas := s.ZonesCount(), s.ReplicationFactor()
	if size <= 0 || zones == 0 || zones >= replicas {
		return size
	}
	return (size + replicas - 1) / replicas * zones
}

// ShuffleShard implements ring.ReadRing.
func (s steady) ShuffleShard(identifier string, size int) ring.ReadRing {
	return s.ReadRing.ShuffleShard(identifier, s.size(size))
}

// ShuffleShardWithLookback implements ring.ReadRing.
func (s steady) ShuffleShardWithLookback(identifier string, size int, lookback time.Duration, now time.Time) ring.ReadRing {
	return s.ReadRing.ShuffleShardWithLookback(identifier, s.size(size), lookback, now)
}
