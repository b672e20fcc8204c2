package members

import (
	"slices"

	"github.com/grafana/dskit/ring"
)

// Readable is the operation of reading recent samples. A member enters the ring when it can answer,
// whatever its state in the ring, and one that is about to join is no reason to doubt an answer.
func Readable() ring.Operation {
	return ring.NewOp([]ring.InstanceState{ring.ACTIVE, ring.PENDING, ring.JOINING, ring.LEAVING}, nil)
}

// ReadSet returns whom a read of shard must ask so that every acknowledged sample is in at least one
// answer, and how many may fail. A sample is acknowledged once a quorum of its replicas has it, so
// half of the replication factor may be missing, rounded down: zones if replicas go to different
// zones, else members. As missing counts who is silent, who was forgotten and may have samples that
// are not in object storage yet, a zone that the ring does not (yet) show, and all but one of those
// that claim the same address. Errors: ring.ErrEmptyRing, ring.ErrTooManyUnhealthyInstances.
func ReadSet(shard ring.ReadRing) (ring.ReplicationSet, error) {
	set, err := shard.GetReplicationSetForOperation(Readable())
	if err != nil {
		return set, err
	}
	if set.ZoneAwarenessEnabled {
		if absent := shard.ReplicationFactor() - shard.ZonesCount(); absent > 0 {
			// The set tolerates half of the zones that the ring shows.
			failed := shard.ZonesCount()/2 - set.MaxUnavailableZones
			set.MaxUnavailableZones = shard.ReplicationFactor()/2 - absent - failed
		}
	}
	for {
		i := impostor(set.Instances)
		if i < 0 {
			break
		}
		if set.ZoneAwarenessEnabled {
			zone := set.Instances[i].Zone
			set.Instances = slices.DeleteFunc(set.Instances, func(d ring.InstanceDesc) bool { return d.Zone == zone })
			set.MaxUnavailableZones--
		} else {
			set.Instances = slices.Delete(set.Instances, i, i+1)
			set.MaxErrors--
		}
	}
	if set.MaxErrors < 0 || set.MaxUnavailableZones < 0 {
		return ring.ReplicationSet{}, ring.ErrTooManyUnhealthyInstances
	}
	return set, nil
}

// impostor returns the position of a member whose address another one has used more recently, -1 if
// there is none: it has moved or is gone, and asking its address would ask the other one twice.
func impostor(instances []ring.InstanceDesc) int {
	byAddr := make(map[string]int, len(instances))
	for i := range instances {
		k, ok := byAddr[instances[i].Addr]
		if !ok {
			byAddr[instances[i].Addr] = i
			continue
		}
		if instances[i].Timestamp > instances[k].Timestamp {
			return k
		}
		return i
	}
	return -1
}
