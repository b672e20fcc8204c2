package ha

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/grafana/dskit/kv/memberlist"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// election is who is elected in one cluster. Times are Unix milliseconds and never run back: they
// are at least one more than what they replace, whatever the clocks of distributors say.
type election struct {
	replica    string // "": the cluster is deleted, and is kept for a while so that all learn it
	term       uint64 // counts the elections of the cluster; 0: there was none
	electedAt  int64
	receivedAt int64 // when the replica was heard last
}

// farTime and farTerm bound what is believed, so that what follows can be counted.
const (
	farTime = 1 << 53
	farTerm = 1 << 62
)

// sane says whether e may have been elected.
func (e election) sane() bool {
	return e.term > 0 && e.term < farTerm && e.electedAt > -farTime && e.electedAt < farTime && e.receivedAt > -farTime && e.receivedAt < farTime
}

func (e election) live() bool { return e.replica != "" }

// same says whether e and f are one election.
func (e election) same(f election) bool {
	return e.term == f.term && e.replica == f.replica && e.electedAt == f.electedAt
}

// beats is a total order of elections. The newest election counts, by the number of those before
// it, so a wrong clock decides nothing. Of two at once, a deletion loses, else the one that was
// held first wins: a distributor that knows of no election yet cannot undo one.
func (e election) beats(f election) bool {
	switch {
	case e.term != f.term:
		return e.term > f.term
	case e.live() != f.live():
		return e.live()
	case e.electedAt != f.electedAt:
		return e.electedAt < f.electedAt
	}
	return e.replica < f.replica
}

// join returns what is known if both e and f are.
func (e election) join(f election) election {
	if e.same(f) {
		e.receivedAt = max(e.receivedAt, f.receivedAt)
		return e
	}
	if f.beats(e) {
		return f
	}
	return e
}

// clusterKey names a cluster.
type clusterKey struct {
	tenant  tenant.ID
	cluster string
}

func (k clusterKey) compare(l clusterKey) int {
	return cmp.Or(cmp.Compare(k.tenant, l.tenant), cmp.Compare(k.cluster, l.cluster))
}

// State is what one key of the store holds: the elections of some clusters.
type State struct{ elections map[clusterKey]election }

func newState() *State { return &State{elections: map[clusterKey]election{}} }

// Merge is part of memberlist.Mergeable. What merges is a join of elections, cluster by cluster; a
// cluster that other lacks is not deleted by that.
func (s *State) Merge(other memberlist.Mergeable, _ bool) (memberlist.Mergeable, error) {
	o, ok := other.(*State)
	if !ok {
		return nil, fmt.Errorf("elections cannot be merged with %T", other)
	}
	if o == nil {
		return nil, nil
	}
	var change *State
	for k, e := range o.elections {
		had, known := s.elections[k]
		now := e
		if known {
			now = had.join(e)
		}
		if known && now == had {
			continue
		}
		s.elections[k] = now
		if change == nil {
			change = newState()
		}
		change.elections[k] = now
	}
	if change == nil {
		return nil, nil // not a nil *State
	}
	return change, nil
}

// MergeContent is part of memberlist.Mergeable.
func (s *State) MergeContent() []string {
	out := make([]string, 0, len(s.elections))
	for k := range s.elections {
		out = append(out, string(k.tenant)+"/"+k.cluster)
	}
	return out
}

// RemoveTombstones is part of memberlist.Mergeable. Without a limit nothing is removed: trackers
// must see deletions, since the next election counts on from them.
func (s *State) RemoveTombstones(limit time.Time) (total, removed int) {
	for k, e := range s.elections {
		switch {
		case e.live():
		case !limit.IsZero() && e.receivedAt < limit.UnixMilli():
			delete(s.elections, k)
			removed++
		default:
			total++
		}
	}
	return total, removed
}

// Clone is part of memberlist.Mergeable.
func (s *State) Clone() memberlist.Mergeable { return &State{elections: maps.Clone(s.elections)} }

// keys returns the clusters in order.
func (s *State) keys() []clusterKey {
	return slices.SortedFunc(maps.Keys(s.elections), clusterKey.compare)
}
