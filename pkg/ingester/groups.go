package ingester

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// The bounds are those of the distributor, whose counters these stand beside.
const (
	// maxGroups bounds the groups of one tenant in metrics; what comes beyond them is otherGroup.
	maxGroups  = 1000
	otherGroup = "other"

	// groupIdle is how long a group stays in metrics after a sample of it was refused.
	groupIdle = 20 * time.Minute

	// maxGroupBytes bounds the value of a group.
	maxGroupBytes = 128
)

// sampleCounts is refused samples by reason.
type sampleCounts [numReasons]int64

// groups counts the samples of a tenant that were refused, by the label that its metrics are
// separated by. Without such a label tenantStats counts them.
type groups struct {
	mu  sync.Mutex // guards all and what it points to
	all map[string]*group
}

type group struct {
	seen   time.Time
	counts sampleCounts
}

// add counts what a push of the group name was refused, and leaves in counts what is not samples.
func (g *groups) add(name string, counts *[numReasons]int, now time.Time) {
	rows := reasonRows()
	g.mu.Lock()
	defer g.mu.Unlock()
	to := g.all[name]
	if to == nil && len(g.all) >= maxGroups {
		name = otherGroup
		to = g.all[name]
	}
	if to == nil {
		if g.all == nil {
			g.all = map[string]*group{}
		}
		to = &group{}
		g.all[name] = to
	}
	to.seen = now
	for r := range counts {
		if rows[r].of == refusedSamples {
			to.counts[r] += int64(counts[r])
			counts[r] = 0
		}
	}
}

// forgetIdle forgets the groups of which nothing was refused for long.
func (g *groups) forgetIdle(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, of := range g.all {
		if now.Sub(of.seen) >= groupIdle {
			delete(g.all, name)
		}
	}
}

// counted returns a copy of the counts.
func (g *groups) counted() map[string]sampleCounts {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]sampleCounts, len(g.all))
	for name, of := range g.all {
		out[name] = of.counts
	}
	return out
}

// groupOf is the value that the first series of f has for the label that the tenant's metrics are
// separated by, empty if there is none. It is only asked when something is refused.
func (p *push) groupOf(t *tenantHead, f *frame.Frame) string {
	name := limits.SeparateMetricsGroupLabel.Of(t.ing.limits(t.id))
	if name == "" || len(p.refs)+len(p.hists) == 0 {
		return ""
	}
	first := p.hists
	if len(p.refs) > 0 {
		first = p.refs
	}
	ref, ls, _ := p.target(first[0], f)
	if ls.IsEmpty() {
		ls, _ = t.head.Labels(ref)
	}
	value := ls.Get(name)
	n := min(len(value), maxGroupBytes)
	for n > 0 && n < len(value) && !utf8.RuneStart(value[n]) {
		n--
	}
	return strings.ToValidUTF8(value[:n], "\uFFFD")
}
