package distributor

import (
	"sync"
	"time"
)

const (
	// maxGroups bounds the groups of one tenant in metrics; what comes beyond them is otherGroup.
	maxGroups  = 1000
	otherGroup = "other"

	// groupIdle is how long a group stays in metrics after something of it was refused.
	groupIdle = 20 * time.Minute

	// maxGroupBytes bounds the value of a group.
	maxGroupBytes = 128
)

// groups are the values of the label group that a tenant's metrics have.
type groups struct {
	mu   sync.Mutex // guards seen
	seen map[string]uint32
}

// take returns the name under which name is counted, and notes that it is in use.
func (g *groups) take(name string, tick uint32) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.seen[name]; !ok && len(g.seen) >= maxGroups {
		return otherGroup
	}
	if g.seen == nil {
		g.seen = map[string]uint32{}
	}
	g.seen[name] = tick
	return name
}

// idle forgets the groups not used for long, and returns them.
func (g *groups) idle(tick uint32) (names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, seen := range g.seen {
		if int32(tick-seen) >= int32(groupIdle/time.Second) {
			delete(g.seen, name)
			names = append(names, name)
		}
	}
	return names
}

// group returns the label group of what this push is refused: the value that the first series has
// for the label the tenant chose. It is only asked when something is refused.
func (p *push) group() string {
	if p.lim.groupLabel == "" || p.batch.Len() == 0 {
		return ""
	}
	ls, _, err := p.batch.Labels(0, p.labels[:0], mostLabels)
	if err != nil {
		return ""
	}
	p.labels = ls
	for i := range ls {
		if string(ls[i].Name) == p.lim.groupLabel {
			return p.t.groups.take(text(ls[i].Value, maxGroupBytes), p.tick)
		}
	}
	return ""
}
