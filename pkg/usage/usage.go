// Package usage owns what tenants ask for: which metrics and labels their queries, rules and lookups
// name, on which day. Each process notes that in memory and merges it into one document of each tenant,
// from which it says what is stored and never asked for, and how to drop that.
package usage

import (
	"context"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// The bounds of what is noted of one tenant. What has no place is noted as such, and then nothing is
// called unused.
const (
	maxNames    = 20_000 // metrics, and as many labels
	maxPatterns = 500
	maxTexts    = 20_000 // queries of a day that are recognized
	// maxNameBytes and maxPatternBytes bound one of them.
	maxNameBytes    = 1 << 10
	maxPatternBytes = 4 << 10
)

// Config is the settings of what is noted; app mounts it as usage_insights.
type Config struct {
	WritePeriod time.Duration
	Retention   time.Duration
}

// Declare names the settings.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.WritePeriod, "write_period", 5*time.Minute, "How often a process writes to object storage what tenants asked for. A process that is killed loses what it noted since.").Expert()
	s.Duration(&c.Retention, "retention", 90*24*time.Hour, "How long it is remembered that a metric or label was asked for; whole days.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if c.WritePeriod <= 0 {
		return config.Wrong("write_period", "is %s; it must be more than 0", c.WritePeriod)
	}
	if c.Retention < 24*time.Hour || c.Retention > 400*24*time.Hour {
		return config.Wrong("retention", "is %s; it must be from 1d to 400d", c.Retention)
	}
	return nil
}

// Deps are what a Tracker works with.
type Deps struct {
	Log       *slog.Logger
	Reg       prometheus.Registerer
	Limits    func(tenant.ID) limits.View
	Documents *docstore.Store
	// Deleted says whether a tenant is being deleted. No document is begun for one that is. nil: none is.
	Deleted func(context.Context, tenant.ID) (bool, error)
	// Observes says that queries come in here: a day on which no process does is one of which nothing is known.
	Observes bool
	Now      func() time.Time // nil: time.Now
}

// Tracker notes what tenants ask for. Its methods may be called at the same time.
type Tracker struct {
	services.Service

	cfg     Config
	deps    Deps
	metrics *metrics
	seed    maphash.Seed
	swept   day // only the service reads and writes it

	mu      sync.RWMutex // guards tenants
	tenants map[tenant.ID]*noted
}

// New returns a tracker. Errors: Invalid.
func New(cfg Config, deps Deps) (*Tracker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	t := &Tracker{cfg: cfg, deps: deps, metrics: newMetrics(deps.Reg), seed: maphash.MakeSeed(), tenants: map[tenant.ID]*noted{}}
	t.Service = services.NewBasicService(nil, t.run, t.last)
	return t, nil
}

// noted is what is noted of one tenant.
type noted struct {
	mu    sync.RWMutex // guards what follows
	gone  bool         // it is no more in the tracker
	day   day
	texts map[uint64]struct{} // hashes of queries of the day, with their classes
	today notes
	// pending is what no document has yet; it may be of several days.
	pending notes
}

// Query notes what a query names. tree returns its syntax tree, and is not called for a query that was
// noted today.
func (t *Tracker) Query(ids []tenant.ID, class work.Class, text string, tree func() parser.Expr) {
	const spread = 0x9e3779b97f4a7c15
	key, today := maphash.String(t.seed, text)+spread*uint64(class), dayOf(t.deps.Now())
	var found *names
	for _, id := range ids {
		if n := t.of(id); n != nil && n.knows(key, today) {
			continue
		}
		if !t.Notes(id) {
			t.miss(id, today)
			continue
		}
		if found == nil {
			found = namesOf(tree())
		}
		t.note(id, asking{class, today, key}, found)
	}
}

// Lookup notes a call that lists series, labels or samples by matchers. label is the one whose values
// are listed; empty: none.
func (t *Tracker) Lookup(ids []tenant.ID, class work.Class, label string, ms []*labels.Matcher) {
	var found names
	found.label(label)
	if len(ms) > 0 {
		found.selector(ms, false)
	}
	today := dayOf(t.deps.Now())
	for _, id := range ids {
		if t.Notes(id) {
			t.note(id, asking{class: class, day: today}, &found)
		} else {
			t.miss(id, today)
		}
	}
}

// Notes says whether it is noted what a tenant asks for.
func (t *Tracker) Notes(id tenant.ID) bool {
	return limits.UsageInsightsEnabled.Of(t.deps.Limits(id))
}

// of returns what is noted of a tenant, nil if nothing is.
func (t *Tracker) of(id tenant.ID) *noted {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.tenants[id]
}

// knows says whether a query was noted today.
func (n *noted) knows(key uint64, today day) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	_, ok := n.texts[key]
	return ok && n.day == today
}

// asking is who asks when.
type asking struct {
	class work.Class
	day   day
	query uint64 // its hash; 0: it is none
}

// begun returns what is noted of a tenant.
func (t *Tracker) begun(id tenant.ID) *noted {
	if n := t.of(id); n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.tenants[id]
	if n == nil {
		n = &noted{}
		t.tenants[id] = n
	}
	return n
}

// miss notes that a tenant asked for something that is not noted.
func (t *Tracker) miss(id tenant.ID, today day) {
	if n := t.of(id); n != nil && n.misses(today) {
		return
	}
	for !t.begun(id).miss(today) {
	}
}

// misses says whether it is known that something was not noted today.
func (n *noted) misses(today day) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.today.Lost == today
}

// miss is not ok if n is gone.
func (n *noted) miss(today day) (ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return false
	}
	n.begin(today)
	n.today.Lost, n.pending.Lost = today, today
	return true
}

// begin forgets the days before today. It needs n.mu.
func (n *noted) begin(today day) {
	if n.day != today {
		n.day, n.texts, n.today = today, map[uint64]struct{}{}, notes{}
	}
}

// clear forgets all. What was noted today is then noted anew if it is asked for again.
func (n *noted) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending, n.today, n.texts = notes{}, notes{}, map[uint64]struct{}{}
}

// note notes names for a tenant.
func (t *Tracker) note(id tenant.ID, by asking, found *names) {
	for {
		if lost, ok := t.begun(id).add(by, found); ok {
			t.metrics.lost.Add(float64(lost))
			return
		}
	}
}

// add notes names, and returns for how many there was no place. It is not ok if n is gone.
func (n *noted) add(by asking, found *names) (lost int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return 0, false
	}
	n.begin(by.day)
	if by.query != 0 && len(n.texts) < maxTexts {
		n.texts[by.query] = struct{}{}
	}
	var a asked
	a[by.class] = by.day
	for _, x := range found.list {
		switch was, ok := n.today.Names[x.kind][x.text]; {
		case ok && was[by.class] == by.day:
			continue
		case !ok && !n.today.fits(x):
			lost++
			n.pending.Lost = max(n.pending.Lost, by.day)
			continue
		case !ok:
			x.text = strings.Clone(x.text) // it may be a part of a long query
		}
		n.today.add(x, a)
		if !n.pending.fits(x) {
			n.pending.Lost = max(n.pending.Lost, by.day)
			continue
		}
		n.pending.add(x, a)
	}
	if found.unnamed && n.today.Unnamed[by.class] != by.day {
		n.today.Unnamed.merge(a)
		n.pending.Unnamed.merge(a)
	}
	return lost, true
}
