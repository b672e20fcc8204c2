package app

import (
	"slices"

	"github.com/grafana/dskit/ring"
)

// registered knows who is in a ring, healthy or not. It is not safe for concurrent use.
type registered struct {
	ring  *ring.Ring
	known map[string]ring.InstanceDesc
}

func newRegistered(r *ring.Ring) registered {
	return registered{ring: r, known: map[string]ring.InstanceDesc{}}
}

// learn brings known up to date and says whether something changed that decides where series go. A
// ring lists who is healthy only, but tells of each it is asked for by name; so whoever was never
// seen healthy is not known.
func (m *registered) learn() (changed bool) {
	op := ring.NewOp([]ring.InstanceState{ring.ACTIVE, ring.LEAVING, ring.PENDING, ring.JOINING}, nil)
	if set, err := m.ring.GetAllHealthy(op); err == nil {
		for _, d := range set.Instances {
			if _, ok := m.known[d.Id]; !ok && d.Id != "" {
				m.known[d.Id] = ring.InstanceDesc{}
			}
		}
	}
	for id, old := range m.known {
		d, err := m.ring.GetInstance(id)
		if err != nil {
			delete(m.known, id)
			changed = true
			continue
		}
		m.known[id] = d // also its heartbeat, by which others tell whether it is healthy
		changed = changed || d.Addr != old.Addr || d.Zone != old.Zone || d.ReadOnly != old.ReadOnly ||
			d.RegisteredTimestamp != old.RegisteredTimestamp || !slices.Equal(d.Tokens, old.Tokens)
	}
	return changed
}
