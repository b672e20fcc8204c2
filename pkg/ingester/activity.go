package ingester

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/head"
)

// pageSeries is the number of series in one page of an activity: so few that a tenant with a
// handful of series costs little.
const pageSeries = 64

// activity knows of each series of a head when a sample was appended last, and counts the series
// that are active: those appended to within the idle timeout. A series has its row by its
// reference, and a push only looks at its row: it takes no lock and seldom writes. The zero value is empty.
type activity struct {
	// dir grows as references do. A page whose series are all gone is dropped.
	dir atomic.Pointer[[]atomic.Pointer[seriesPage]]

	sorting atomic.Bool // known series are finding their cohorts

	mu    sync.Mutex // guards what follows, the growth of dir, and a series' way into and out of the counts
	total tally
	owned ring.TokenRanges // nil: all
	cohorts
	high uint64 // largest reference seen
	last uint32 // tick of the last expiry
}

// seriesPage is the rows of neighbouring references, by columns. What is guarded is so by
// activity.mu.
type seriesPage struct {
	// buckets is nil until a series has a native histogram. Of each series it holds the number of
	// buckets of the newest sample plus one, 0 if that is no histogram. Written under the lock.
	buckets atomic.Pointer[[pageSeries]atomic.Uint32]
	known   int // guarded: series in the counts
	// cohorts is nil until a series is in one; numbers of another generation are none. Guarded.
	cohorts    *[pageSeries]uint32
	generation uint32

	// stamps are ticks of the last append; 0: not active. The lock is held to write from and to 0.
	stamps [pageSeries]atomic.Uint32
	tokens [pageSeries]uint32 // guarded: places on the ring
	flags  [pageSeries]uint8  // guarded
}

// Flags of a series.
const (
	seriesKnown = 1 << iota // in the counts
	seriesOwned             // the ring places it on this ingester
	seriesFresh             // counted as owned because somebody sent it here, not by the ring
)

// tally counts series.
type tally struct {
	series      int64 // in memory
	owned       int64 // of them, those the ring places here
	active      int64
	activeOwned int64
	histograms  int64 // active ones whose newest sample is a native histogram
	buckets     int64 // of those samples
}

func (t *tally) add(d tally) {
	t.series += d.series
	t.owned += d.owned
	t.active += d.active
	t.activeOwned += d.activeOwned
	t.histograms += d.histograms
	t.buckets += d.buckets
}

func (t *tally) sub(d tally) {
	t.add(tally{-d.series, -d.owned, -d.active, -d.activeOwned, -d.histograms, -d.buckets})
}

// tally is what row k counts for. It needs the lock.
func (p *seriesPage) tally(k uint64) (t tally) {
	if p.flags[k]&seriesKnown == 0 {
		return t
	}
	t.series = 1
	if p.flags[k]&seriesOwned != 0 {
		t.owned = 1
	}
	if p.stamps[k].Load() == 0 {
		return t
	}
	t.active, t.activeOwned = 1, t.owned
	if b := p.buckets.Load(); b != nil {
		if n := b[k].Load(); n > 0 {
			t.histograms, t.buckets = 1, int64(n)-1
		}
	}
	return t
}

// page returns page number at, nil if there is none.
func (a *activity) page(at uint64) *seriesPage {
	dir := a.dir.Load()
	if dir == nil || at >= uint64(len(*dir)) {
		return nil
	}
	return (*dir)[at].Load()
}

// room returns page number at and makes it if need be. It needs the lock.
func (a *activity) room(at uint64) *seriesPage {
	if p := a.page(at); p != nil {
		return p
	}
	dir := a.dir.Load()
	if dir == nil || at >= uint64(len(*dir)) {
		size := at + 1
		if dir != nil {
			size = max(size, 2*uint64(len(*dir)))
		}
		grown := make([]atomic.Pointer[seriesPage], size)
		if dir != nil {
			for j := range *dir {
				grown[j].Store((*dir)[j].Load())
			}
		}
		dir = &grown
		a.dir.Store(dir)
	}
	p := new(seriesPage)
	(*dir)[at].Store(p)
	return p
}

// adopt takes the series ls into the counts, owned by this ingester; one that is known stays as it
// is. It must be called between the append of a sample and its commit, so that the series cannot
// leave memory at the same time.
func (a *activity) adopt(ref head.Ref, token uint32, ls labels.Labels) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, k := a.room(uint64(ref)/pageSeries), uint64(ref)%pageSeries
	if p.flags[k]&seriesKnown != 0 {
		return
	}
	a.high = max(a.high, uint64(ref))
	p.flags[k], p.tokens[k] = seriesKnown|seriesOwned|seriesFresh, token
	p.known++
	a.total.add(p.tally(k))
	a.sort(p, k, ls)
}

// sort puts a known series that has no cohort into one. It needs the lock.
func (a *activity) sort(p *seriesPage, k uint64, ls labels.Labels) {
	if a.rules == nil || a.cohortOf(p, k) != 0 {
		return
	}
	var scratch [256]byte
	key, tuple := a.rules.key(scratch[:0], ls)
	n := a.number(key, tuple)
	switch {
	case p.cohorts == nil:
		p.cohorts = new([pageSeries]uint32)
	case p.generation != a.generation:
		clear(p.cohorts[:])
	}
	p.generation, p.cohorts[k] = a.generation, n
	a.cohorts.shift(n, p.tally(k))
}

// cohortOf returns the number of the cohort of row k, 0 if it is in none. It needs the lock.
func (a *activity) cohortOf(p *seriesPage, k uint64) uint32 {
	if p.cohorts == nil || p.generation != a.generation {
		return 0
	}
	return p.cohorts[k]
}

// shift counts what row k counts for now instead of before. It needs the lock.
func (a *activity) shift(p *seriesPage, k uint64, before tally) {
	d := p.tally(k)
	d.sub(before)
	a.total.add(d)
	if n := a.cohortOf(p, k); n != 0 {
		a.cohorts.shift(n, d)
	}
}

// regroup makes the counts follow other rules; the series that are known already are in no cohort
// until sortAgain has found them.
func (a *activity) regroup(r *cohortRules) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cohorts = newCohorts(r, a.generation+1)
}

// sortAgain puts the series ls into its cohort if it is known and in none.
func (a *activity) sortAgain(ref head.Ref, ls labels.Labels) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, k := a.page(uint64(ref)/pageSeries), uint64(ref)%pageSeries; p != nil && p.flags[k]&seriesKnown != 0 {
		a.sort(p, k, ls)
	}
}

// forget takes a series that left memory out of the counts.
func (a *activity) forget(ref head.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, k := a.page(uint64(ref)/pageSeries), uint64(ref)%pageSeries
	if p == nil {
		return
	}
	before := p.tally(k)
	if p.flags[k]&seriesKnown != 0 {
		p.known--
	}
	p.flags[k], p.tokens[k] = 0, 0
	p.stamps[k].Store(0)
	if b := p.buckets.Load(); b != nil {
		b[k].Store(0)
	}
	a.shift(p, k, before)
	if p.cohorts != nil {
		p.cohorts[k] = 0
	}
}

// own counts as owned what the ring places here: the series with the tokens of owned, all if it is
// nil.
func (a *activity) own(owned ring.TokenRanges) {
	a.mu.Lock()
	a.owned = owned
	a.mu.Unlock()
	dir := a.dir.Load()
	if dir == nil {
		return
	}
	for at := range *dir {
		a.mu.Lock()
		if p := a.page(uint64(at)); p != nil {
			for k := range uint64(pageSeries) {
				a.ownRow(p, k)
			}
		}
		a.mu.Unlock()
	}
}

// ownRow needs the lock.
func (a *activity) ownRow(p *seriesPage, k uint64) {
	if p.flags[k]&seriesKnown == 0 {
		return
	}
	flags := uint8(seriesKnown)
	if a.owned == nil || a.owned.IncludesKey(p.tokens[k]) {
		flags |= seriesOwned
	}
	if flags == p.flags[k] {
		return
	}
	before := p.tally(k)
	p.flags[k] = flags
	a.shift(p, k, before)
}

// expire ends the activity of the series that were last appended to before the tick oldest, and
// drops pages nobody needs.
func (a *activity) expire(now, oldest uint32) {
	dir := a.dir.Load()
	if dir == nil {
		return
	}
	for at := range *dir {
		a.expirePage(uint64(at), oldest)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = now
}

// expireOnce is expire, but for the first of a tick only.
func (a *activity) expireOnce(now, oldest uint32) {
	a.mu.Lock()
	done := a.last == now
	a.last = now
	a.mu.Unlock()
	if !done {
		a.expire(now, oldest)
	}
}

// expirePage takes the lock for itself, so that pushes wait for one page at most.
func (a *activity) expirePage(at uint64, oldest uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.page(at)
	if p == nil {
		return
	}
	for k := range uint64(pageSeries) {
		if p.flags[k]&seriesFresh != 0 {
			a.ownRow(p, k)
		}
		was := p.stamps[k].Load()
		if was == 0 || int32(oldest-was) <= 0 {
			continue
		}
		before := p.tally(k)
		if p.stamps[k].CompareAndSwap(was, 0) { // else it was just appended to
			a.shift(p, k, before)
		}
	}
	// A series that is in memory but not known has had no sample taken; its row is made again if
	// that comes.
	if p.known == 0 && (at+1)*pageSeries <= a.high {
		(*a.dir.Load())[at].Store(nil)
	}
}

// counts returns the counts of now.
func (a *activity) counts() tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// visit is the way of one push through the rows of a tenant. Neighbours of a push are neighbours
// here, so it keeps the page at hand.
type visit struct {
	of   *activity
	tick uint32
	// mixed says that the tenant has native histograms, so that a float sample may be the first
	// after one.
	mixed bool
	// attributed says that usage is attributed to values of labels.
	attributed bool
	at         uint64
	page       *seriesPage
}

// visit begins at tick.
func (a *activity) visit(tick uint32) visit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return visit{of: a, tick: tick, mixed: a.total.histograms > 0, attributed: a.rules != nil && len(a.rules.attribution) > 0}
}

// float notes that a float sample was appended to the series ref, which is known.
func (v *visit) float(ref head.Ref) {
	if at := uint64(ref) / pageSeries; at != v.at || v.page == nil {
		v.turn(at)
	}
	if old := v.page.stamps[uint64(ref)%pageSeries].Load(); v.tick-old >= lazyTicks || v.mixed {
		v.stamp(uint64(ref)%pageSeries, old, 0)
	}
}

// histogram notes that a native histogram of so many buckets was appended to the series ref, which
// is known.
func (v *visit) histogram(ref head.Ref, buckets int) {
	if at := uint64(ref) / pageSeries; at != v.at || v.page == nil {
		v.turn(at)
	}
	k := uint64(ref) % pageSeries
	v.stamp(k, v.page.stamps[k].Load(), uint32(buckets)+1)
}

// active says whether the series ref is active.
func (v *visit) active(ref head.Ref) bool {
	p := v.page
	if at := uint64(ref) / pageSeries; at != v.at || p == nil {
		p = v.of.page(at)
	}
	return p != nil && p.stamps[uint64(ref)%pageSeries].Load() != 0
}

// replayed is float or histogram for a sample of the log, which may be older than the last one;
// tick 0 is of a sample that is too old to matter.
func (v *visit) replayed(ref head.Ref, tick, buckets uint32) {
	if tick == 0 {
		return
	}
	if at := uint64(ref) / pageSeries; at != v.at || v.page == nil {
		v.turn(at)
	}
	k := uint64(ref) % pageSeries
	if old := v.page.stamps[k].Load(); old < tick || buckets > 0 {
		v.tick = max(tick, old)
		v.stamp(k, old, buckets)
	}
}

// adopt is activity.adopt. The row may be in a page that was just made.
func (v *visit) adopt(ref head.Ref, token uint32, ls labels.Labels) {
	v.of.adopt(ref, token, ls)
	v.turn(uint64(ref) / pageSeries)
}

// turn takes page number at to hand.
func (v *visit) turn(at uint64) {
	if v.page = v.of.page(at); v.page == nil {
		v.of.mu.Lock()
		defer v.of.mu.Unlock()
		v.page = v.of.room(at)
	}
	v.at = at
}

// stamp writes the tick into row k, which was old; buckets is as in seriesPage.
func (v *visit) stamp(k uint64, old, buckets uint32) {
	p := v.page
	b := p.buckets.Load()
	same := b == nil && buckets == 0 || b != nil && b[k].Load() == buckets
	if same && old != 0 && (v.tick-old < lazyTicks || p.stamps[k].CompareAndSwap(old, v.tick)) {
		return
	}
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	before := p.tally(k)
	p.stamps[k].Store(v.tick)
	if !same {
		if b == nil {
			b = new([pageSeries]atomic.Uint32)
			p.buckets.Store(b)
		}
		b[k].Store(buckets)
	}
	v.of.shift(p, k, before)
}

// activeClock turns times into the ticks of an activity. The idle timeout is idleTicks of them.
type activeClock struct{ base, grain int64 } // milliseconds

const (
	// idleTicks is the number of ticks in the idle timeout.
	idleTicks = 240
	// lazyTicks is how much older than its last sample the stamp of a series may be: writing costs
	// several times what reading does. A series may count as active for as long beyond the timeout.
	lazyTicks = 6
	// minGrain keeps the ticks of a process within 31 bits for a year.
	minGrain = 15 * time.Millisecond
)

// newActiveClock returns a clock on which the times that are active at now have a tick.
func newActiveClock(now time.Time, idle time.Duration) activeClock {
	grain := max(idle/idleTicks, minGrain)
	return activeClock{now.Add(-(idleTicks + lazyTicks) * grain).UnixMilli(), grain.Milliseconds()}
}

// tick returns the tick of a time in Unix milliseconds, 0 for one that is too early to be active.
func (c activeClock) tick(ms int64) uint32 {
	if ms < c.base {
		return 0
	}
	return uint32((ms-c.base)/c.grain) + 1
}

// oldest returns the earliest stamp that is active at now.
func (c activeClock) oldest(now uint32) uint32 { return now - min(now-1, idleTicks+lazyTicks) }

// bucketsOf is the number of buckets of a native histogram.
func bucketsOf(s *histogramSample) int {
	if s.h != nil {
		return len(s.h.PositiveBuckets) + len(s.h.NegativeBuckets)
	}
	return len(s.fh.PositiveBuckets) + len(s.fh.NegativeBuckets)
}
