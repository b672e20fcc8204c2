package ingester

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// replayWindow is how late a sample of the log may be: it was acknowledged once, under whatever
// limits, and the order of the log may differ from the order in which pushes of one moment reached
// the head.
const replayWindow = 290 * 365 * 24 * time.Hour // about as long as a Duration can be

// tenantHead is the recent data of one tenant: its head and what the ingester keeps beside it.
type tenantHead struct {
	id  tenant.ID
	dir string
	ing *Ingester

	// session names this head in the log.
	session uint64
	// defined holds the references whose definition is on disk in the log.
	defined bits

	sized uint64 // the series it is laid out for, or written down since; used at open and by house rounds

	// gate is held for reading while head is in use and for writing to close it.
	gate   sync.RWMutex
	closed bool // guarded by gate
	head   *head.Head

	replaying atomic.Bool  // no limits apply
	lastPush  atomic.Int64 // Unix milliseconds
	exemplars atomic.Int64 // the applied number of exemplars; 0: they are not stored

	// compacting is held by the one that compacts or ships.
	compacting sync.Mutex
	shipped    shippedBlocks // guarded by compacting
	unlisted   []ulid.ULID   // shipped, and not yet seen in the bucket index; guarded by compacting
	// unexplained says that blocks were shipped since metadata was; guarded by compacting.
	unexplained bool
	dueSince    time.Time     // guarded by compacting
	cutEarlyAt  time.Time     // guarded by compacting
	window      time.Duration // the applied out-of-order window; guarded by compacting

	segments segmentTimes
	chunks   chunkMemory
	activity activity
	place    atomic.Pointer[Place] // by which activity knows what is owned
	grouping grouping
	groups   groups
	pending  pending
	metadata metadataStore
	stats    tenantStats
	metrics  seriesPerMetric
}

// enter keeps the head open until leave. It fails if the head was closed.
func (t *tenantHead) enter() bool {
	t.gate.RLock()
	if t.closed {
		t.gate.RUnlock()
		return false
	}
	return true
}

func (t *tenantHead) leave() { t.gate.RUnlock() }

const (
	// cutWait is how long a push of samples older than what a flush of its tenant cuts waits for that,
	// which mostly takes less. Longer, and the pushes of one tenant would take all workers of a
	// stream from the others.
	cutWait = 500 * time.Millisecond
	cutPoll = 2 * time.Millisecond
)

// appender starts a batch for f, in the memory of again. Errors: Unavailable if samples as old as
// those of f are being cut; the cause of ctx.
func (t *tenantHead) appender(ctx context.Context, f *frame.Frame, again *head.Appender) (*head.Appender, error) {
	oldest := int64(math.MinInt64) // not looked at unless it matters
	if t.head.Cutting() {
		oldest = oldestOf(f)
	}
	if app := t.head.TryAppender(oldest, again); app != nil {
		return app, nil
	}
	oldest = oldestOf(f)
	limit, tick := time.NewTimer(cutWait), time.NewTicker(cutPoll)
	defer limit.Stop()
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if app := t.head.TryAppender(oldest, again); app != nil {
				return app, nil
			}
		case <-limit.C:
			return nil, errs.New(errs.Unavailable, "tenant %s is being flushed", t.id)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a flush of tenant %s: %w", t.id, context.Cause(ctx))
		}
	}
}

// oldestOf is the earliest time of a sample in f. Start times do not count: a zero sample that a cut
// refuses is left out.
func oldestOf(f *frame.Frame) int64 {
	oldest := int64(math.MaxInt64)
	for _, t := range f.Times {
		oldest = min(oldest, t)
	}
	for k := range f.Histograms {
		oldest = min(oldest, f.Histograms[k].Time)
	}
	return oldest
}

// tenantDir is where the tenant's blocks and state lie.
func (i *Ingester) tenantDir(id tenant.ID) string {
	return filepath.Join(i.tenantsDir(), string(id))
}

func (i *Ingester) tenantsDir() string { return filepath.Join(i.cfg.DataDir, "tenants") }

// lookup returns the tenant's head if it is open, nil if not.
func (i *Ingester) lookup(id tenant.ID) *tenantHead {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.tenants[id]
}

// open returns the tenant's head and opens it if need be. Errors: Unavailable (instance limit, or
// the disk does not work).
func (i *Ingester) open(id tenant.ID, replaying bool) (*tenantHead, error) {
	return i.openHead(id, opening{replaying: replaying})
}

// opening says how a head is opened.
type opening struct {
	replaying bool           // whatever the limits say
	from      *head.Snapshot // in snapshotDir; nil: empty
}

// openHead is open, and returns head.ErrSnapshot if there is something wrong with the snapshot.
func (i *Ingester) openHead(id tenant.ID, how opening) (*tenantHead, error) {
	replaying := how.replaying
	if t := i.lookup(id); t != nil {
		return t, nil
	}
	opening := i.opening.of(id)
	opening.Lock()
	defer opening.Unlock()
	if t := i.lookup(id); t != nil {
		return t, nil
	}
	if !replaying && !i.accepting.Load() {
		return nil, errStopping // heads are being closed
	}
	if most := i.instanceLimits().MaxTenants; most > 0 && !replaying && i.numTenants() >= most {
		i.metrics.rejected.WithLabelValues(rejectedTenants).Inc()
		return nil, instanceLimit("ingester-max-tenants", "max-tenants", "the ingester holds as many tenants as it may")
	}
	if !replaying { // a tenant is opened for its first series
		if err := i.memory.series.Room(); err != nil {
			i.metrics.rejected.WithLabelValues(rejectedMemory).Inc()
			return nil, err
		}
		if err := i.space.low(); err != nil {
			i.metrics.rejected.WithLabelValues(rejectedDiskLow).Inc()
			return nil, err
		}
	}
	t := &tenantHead{id: id, dir: i.tenantDir(id), ing: i, session: i.nextSession()}
	t.segments.last = -1
	t.replaying.Store(replaying)
	t.lastPush.Store(i.now().UnixMilli())
	v := i.limits(id)
	t.window = limits.OutOfOrderTimeWindow.Of(v)
	t.exemplars.Store(int64(i.localExemplars(id, v)))
	t.regroup(v)
	if p := i.placeOf(id); p != nil {
		t.activity.own(p.Owned)
		t.place.Store(p)
	}
	window := t.window
	if replaying {
		window = replayWindow
	}
	t.sized = i.expectedSeries(t.dir, i.numTenants())
	var err error
	if t.shipped, err = readShipped(t.dir); err != nil {
		i.log.Warn("list of shipped blocks not readable, blocks are compared with the bucket again", "tenant", id, "err", err)
	}
	if err := t.metadata.load(t.dir, i.now()); err != nil {
		i.log.Warn("metadata not readable, it is unknown until senders say it again", "tenant", id, "err", err)
	}
	t.head, err = head.Open(head.Options{
		Dir: t.dir, Logger: i.log.With("tenant", id), OutOfOrderWindow: window, MaxExemplars: int(t.exemplars.Load()),
		LargeLateBlocks: i.cfg.LargeLateBlocks, Now: i.now, Series: t.sized, Shared: i.opening.shared, Selections: i.opening.selections,
		Snapshot: how.from, SnapshotDir: filepath.Join(t.dir, snapshotDir), Restored: t.restored,
		PreCreate: t.mayCreate, PostCreate: t.created, PostDelete: t.deleted,
	})
	if err != nil {
		return nil, errs.New(errs.Unavailable, "open tenant %s: %w", id, err)
	}
	if err := os.RemoveAll(filepath.Join(t.dir, snapshotDir)); err != nil {
		i.log.Warn("used snapshot stays on disk until the next stop", "tenant", id, "err", err)
	}
	i.memory.series.Take(headBytes)
	i.mu.Lock()
	i.tenants[id] = t
	i.mu.Unlock()
	return t, nil
}

func (i *Ingester) numTenants() int {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.tenants)
}

// all returns the open tenants in no order.
func (i *Ingester) all() []*tenantHead {
	i.mu.RLock()
	defer i.mu.RUnlock()
	out := make([]*tenantHead, 0, len(i.tenants))
	for _, t := range i.tenants {
		out = append(out, t)
	}
	return out
}

func (i *Ingester) localExemplars(id tenant.ID, v limits.View) int {
	return i.localLimit(id, limits.MaxGlobalExemplarsPerUser.Of(v))
}

// mayCreate is asked by the head before it creates a series. The series created by concurrent
// pushes may overshoot a limit by the number of pushes.
func (t *tenantHead) mayCreate(ls labels.Labels) error {
	if t.replaying.Load() {
		return nil
	}
	i := t.ing
	if err := i.refusesNewSeries(); err != nil {
		return err
	}
	if err := i.memory.series.Room(); err != nil {
		return &shortOfMemory{err}
	}
	v := i.limits(t.id)
	if global := limits.MaxGlobalSeriesPerUser.Of(v); global > 0 {
		if t.reaches(global, t.ownedSeries()) {
			return &refusal{reasonSeriesPerTenant, errs.Limit(errs.Invalid, "max-series-per-user",
				limits.MaxGlobalSeriesPerUser.Row().Flag, limits.MaxGlobalSeriesPerUser.Row().Name,
				"per-user series limit of %d exceeded", global)}
		}
	}
	if r := t.overLabelSet(ls); r != nil {
		return r
	}
	if global := limits.MaxGlobalSeriesPerMetric.Of(v); global > 0 {
		if t.reaches(global, int64(t.metrics.of(ls.Get(model.MetricNameLabel)))) {
			err := errs.Limit(errs.Invalid, "max-series-per-metric",
				limits.MaxGlobalSeriesPerMetric.Row().Flag, limits.MaxGlobalSeriesPerMetric.Row().Name,
				"per-metric series limit of %d exceeded", global)
			return &refusal{reasonSeriesPerMetric, fmt.Errorf("%w This is for series %s", err, ls)}
		}
	}
	return nil
}

func (t *tenantHead) created(ls labels.Labels) {
	t.ing.series.Add(1)
	t.ing.memory.series.Take(seriesBytes(ls))
	t.stats.seriesCreated.Add(1)
	t.metrics.add(ls.Get(model.MetricNameLabel), 1)
}

func (t *tenantHead) deleted(ref head.Ref, ls labels.Labels) {
	t.activity.forget(ref)
	t.ing.series.Add(-1)
	t.ing.memory.series.Release(seriesBytes(ls))
	t.stats.seriesRemoved.Add(1)
	t.metrics.add(ls.Get(model.MetricNameLabel), -1)
}

// seriesPerMetric counts the series of each metric name.
type seriesPerMetric struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

func (s *seriesPerMetric) add(metric string, delta int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	if n := s.n[metric] + delta; n > 0 {
		if _, known := s.n[metric]; !known {
			metric = cloneString(metric) // the labels' memory is larger and lives as long as the series
		}
		s.n[metric] = n
	} else {
		delete(s.n, metric)
	}
}

func (s *seriesPerMetric) of(metric string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[metric]
}

// segmentTimes remembers which segments of the log hold samples of a tenant, and up to which time.
type segmentTimes struct {
	mu      sync.Mutex    // guards the fields below
	newest  []segmentTime // ascending segments; those whose samples are all in blocks are gone
	last    int           // the last segment that held anything
	noLate  int           // the late samples of segments below are in blocks
	inBlock int64         // in-order samples before are in blocks, as last persisted
}

// segmentTime is the newest sample of one tenant in one segment.
type segmentTime struct {
	segment int
	maxt    int64
}

// note says that segment holds samples up to maxt.
func (s *segmentTimes) note(segment int, maxt int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, segment)
	if segment < s.noLate && maxt < s.inBlock {
		return // cut into blocks while the push waited for the log
	}
	for j := len(s.newest) - 1; j >= 0; j-- {
		switch e := &s.newest[j]; {
		case e.segment == segment:
			e.maxt = max(e.maxt, maxt)
			return
		case e.segment < segment:
			s.newest = append(s.newest, segmentTime{})
			copy(s.newest[j+2:], s.newest[j+1:])
			s.newest[j+1] = segmentTime{segment, maxt}
			return
		}
	}
	s.newest = append([]segmentTime{{segment, maxt}}, s.newest...)
}

// compacted says that in-order samples before the time inBlock are in blocks, and late samples of
// segments before noLate.
func (s *segmentTimes) compacted(inBlock int64, noLate int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inBlock, s.noLate = max(inBlock, s.inBlock), max(noLate, s.noLate)
	keep := s.newest[:0]
	for _, e := range s.newest {
		if e.segment >= s.noLate || e.maxt >= s.inBlock {
			keep = append(keep, e)
		}
	}
	s.newest = keep
}

// firstNeeded returns the first segment with samples that are not in blocks, MaxInt if there is
// none.
func (s *segmentTimes) firstNeeded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.newest) == 0 {
		return math.MaxInt
	}
	return s.newest[0].segment
}

// lastHeld returns the last segment that held anything of the tenant, -1 if none did.
func (s *segmentTimes) lastHeld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
