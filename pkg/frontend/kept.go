package frontend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

const (
	// leastFreshness is how old what is kept is at least: ingesters note the samples that come later
	// than that, with some room for clocks that differ.
	leastFreshness = 2 * time.Minute
	// longestNormalised is up to what length queries that differ in their layout are the same: to lay a
	// text out may take the square of its length.
	longestNormalised = 16 << 10
	// cachedDay is into what queries are split for the results cache if they are not split anyhow.
	cachedDay = 24 * time.Hour
	// reviewAfter is how old what is known of kept answers may be until it is written anew.
	reviewAfter = 10 * time.Minute
)

type noStoreKey struct{}

// WithoutCache returns ctx for requests whose answers are neither taken from the results cache nor put
// there.
func WithoutCache(ctx context.Context) context.Context {
	return context.WithValue(ctx, noStoreKey{}, true)
}

func withoutCache(ctx context.Context) bool {
	no, _ := ctx.Value(noStoreKey{}).(bool)
	return no
}

// kept is what the results cache does for one run. A nil kept does nothing.
type kept struct {
	r     *run
	cache *results.Cache
	kind  results.Kind
	base  string // of the keys of the parts
	grid  results.Grid
	rules results.Rules
	until int64 // times after it are not kept
	ttl   time.Duration
	late  time.Duration // the lifetime of what samples may still come for
	ooo   int64         // since when those are
	begin int64

	once  sync.Once // guards what the log is
	known bool
	log   changes.Log

	mu                sync.Mutex // guards what follows
	hitBytes, missing int
}

// keep decides whether the answer to q is kept, and says what of it may be.
func (q *query) keep(ctx context.Context) *kept {
	f := q.f
	if f.deps.Results == nil || work.ClassOf(ctx) == work.Rule || q.asked.PerStepStats || !cacheable(q.expr) {
		return nil
	}
	if withoutCache(ctx) {
		f.deps.Results.Skip(results.AskedNotTo)
		return nil
	}
	if q.asked.Step > 0 && q.asked.Start%q.asked.Step != 0 && !every(q, limits.CacheUnalignedRequests) {
		return nil
	}
	lookback := q.asked.Lookback
	if lookback <= 0 {
		lookback = f.deps.Lookback
	}
	reach, ok := reachOf(q.expr, lookback)
	if !ok {
		f.deps.Results.Skip(results.NotFixed)
		return nil
	}
	now := f.deps.Now()
	k := &kept{cache: f.deps.Results, kind: results.Range, begin: now.UnixMilli(),
		rules: results.Rules{Reach: reach, Now: now.UnixMilli(), Skew: f.deps.Skew.Milliseconds()}, grid: results.Grid{Step: q.asked.Step, Phase: q.asked.Start}}
	if q.asked.Step == 0 {
		k.kind = results.Instant
	} else {
		k.grid.Phase = q.asked.Start % q.asked.Step
	}
	fresh := k.limits(q, now)
	k.until = now.Add(-fresh).UnixMilli() - reach.Ahead
	switch {
	case k.ttl <= 0:
		return nil
	case reach.Fixed && reach.MaxTime > now.Add(-fresh).UnixMilli(), q.asked.Start > k.until:
		f.deps.Results.Skip(results.TooNew)
		return nil
	}
	text := q.asked.Text
	if len(text) <= longestNormalised {
		text = q.expr.String()
	}
	k.base = results.Key(k.kind, q.tenancy(), text, lookback.String(), fmt.Sprint(k.grid, q.ranged()))
	return k
}

// limits reads what the tenants of q say, and returns how fresh an answer is not kept.
func (k *kept) limits(q *query, now time.Time) (fresh time.Duration) {
	fresh = leastFreshness
	for i, id := range q.tenants {
		v := q.f.deps.Limits(id)
		fresh = max(fresh, limits.MaxCacheFreshness.Of(v))
		ttl, late := limits.ResultsCacheTTL.Of(v), limits.ResultsCacheTTLForOutOfOrder.Of(v)
		if i == 0 {
			k.ttl, k.late, k.ooo = ttl, late, now.UnixMilli()
		}
		k.ttl, k.late = min(k.ttl, ttl), min(k.late, late)
		k.ooo = min(k.ooo, now.Add(-limits.OutOfOrderTimeWindow.Of(v)).UnixMilli())
		for _, age := range []time.Duration{limits.MaxQueryLookback.Of(v), limits.CompactorBlocksRetentionPeriod.Of(v)} {
			if age > 0 {
				k.rules.Floor = max(k.rules.Floor, now.Add(-age).UnixMilli())
			}
		}
		for _, rule := range limits.RetentionBySelector.Of(v).List() {
			if rule.Period > 0 {
				k.rules.Lapses = append(k.rules.Lapses, rule.Period.Milliseconds())
			}
		}
	}
	return fresh
}

// tenancy tells the tenants of q and their limits apart from all others.
func (q *query) tenancy() string {
	b := make([]byte, 0, 64)
	for _, id := range q.tenants {
		b = append(append(b, id...), 0)
		b = strconv.AppendUint(b, q.f.prints.of(id, q.f.deps.Limits(id)), 16)
		b = append(b, 0)
	}
	return string(b)
}

// changes returns what changed, as far as anybody knows. It asks once.
func (k *kept) changes(ctx context.Context) (changes.Log, bool) {
	k.once.Do(func() {
		log, err := k.r.q.f.deps.Changes(ctx)
		if err != nil {
			if ctx.Err() == nil {
				k.cache.Skip(results.ChangesGone)
				k.r.q.f.deps.Logger.Warn("nobody could say whether kept answers still hold, the query is evaluated", "err", err)
			}
			return
		}
		k.known, k.log = true, log
		k.log.Time = min(k.log.Time, k.begin)
		k.rules.Log = k.log
	})
	return k.log, k.known
}

// keptEntry is what the cache has for one part of the times of a query.
type keptEntry struct {
	key           string
	read, written int // bytes
}

// trace notes what the cache had for a part, if the query is explained.
func (k *kept) trace(e *keptEntry, at grid, use, gaps int, begin time.Time) {
	if k.r.q.trace == nil {
		return
	}
	outcome := "partial"
	switch {
	case gaps == 0:
		outcome = "hit"
	case use == 0:
		outcome = "miss"
	}
	k.r.q.trace.kept(ExplainCached{Query: strings.TrimSpace(k.r.q.asked.Text), ExplainRange: at.shown(), Outcome: outcome,
		Read: e.read, Written: e.written, Seconds: k.r.q.f.deps.Now().Sub(begin).Seconds()})
}

// part answers for one part of the times of the query, from the cache as far as it goes.
func (k *kept) part(ctx context.Context, at grid) (answer, error) {
	begin, entry := k.r.q.f.deps.Now(), &keptEntry{key: k.base}
	if at.step > 0 {
		entry.key += ":" + strconv.FormatInt(day(at.start, k.r.q.interval()), 10)
	}
	old, stale := k.load(ctx, entry)
	use, gaps := k.lay(old, at)
	defer func() { k.trace(entry, at, len(use), len(gaps), begin) }()
	covered := at.len()
	for _, g := range gaps {
		covered -= g.len()
	}
	k.cache.Asked(k.kind, float64(covered)/float64(at.len()))
	parts, fresh, all := make([]promql.Matrix, len(gaps)), make([]results.Extent, 0, len(gaps)), make([]answer, len(gaps))
	g, gctx := errs.Together(ctx)
	for i, gap := range gaps {
		g.Go(func() (err error) {
			if all[i], err = k.r.part(gctx, gap); err == nil && !k.instant() {
				parts[i], err = matrixIn(all[i].value)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	if k.instant() {
		return k.single(ctx, entry, use, all)
	}
	for i, gap := range gaps {
		fresh = append(fresh, k.extent(gap, parts[i], all[i]))
	}
	whole := slices.Concat(use, fresh)
	slices.SortFunc(whole, func(a, b results.Extent) int { return int(a.Start - b.Start) })
	out := answer{}
	for _, e := range whole {
		work.AddNotes(&out.notes, e.Notes)
	}
	matrices := make([]promql.Matrix, len(whole))
	for i := range whole {
		matrices[i] = whole[i].Series
	}
	_, turn, end := k.r.q.f.deps.Turns.Begin(ctx)
	out.value = results.Append(matrices, turn)
	end()
	if len(fresh) > 0 || stale {
		k.store(ctx, entry, old, fresh)
	}
	return out, nil
}

func (k *kept) instant() bool { return k.grid.Step == 0 }

// load returns the extents of an entry that hold, and whether what is known of them is to be written anew.
func (k *kept) load(ctx context.Context, entry *keptEntry) (_ []results.Extent, stale bool) {
	item, ok := k.cache.Get(ctx, entry.key)
	if !ok {
		return nil, false
	}
	a, err := k.decode(ctx, item)
	if err != nil || a.Grid != k.grid || k.instant() && !k.fits(a) {
		k.cache.Damaged()
		return nil, false
	}
	log, known := k.changes(ctx)
	if !known {
		return nil, false
	}
	var out []results.Extent
	outdated := 0
	for i := range a.Extents {
		e := &a.Extents[i]
		if len(e.Notes) > 0 && a.Text != k.r.q.asked.Text {
			continue // its positions are those of another text
		}
		spans := k.rules.Holds(e, k.grid)
		if len(spans) != 1 || spans[0] != (results.Span{Start: e.Start, End: e.End}) {
			outdated++
		}
		for _, s := range spans {
			if !usable(e, s.Start, s.End) {
				continue
			}
			held := e.Cut(s)
			stale = stale || log.Time-held.At > reviewAfter.Milliseconds()
			held.At = log.Time // it holds as of the log
			out = append(out, held)
		}
	}
	k.cache.Outdated(outdated)
	k.mu.Lock()
	k.hitBytes += len(item)
	k.mu.Unlock()
	entry.read = len(item)
	return out, stale
}

// decode reads an item in the tenant's turn: it may be large.
func (k *kept) decode(ctx context.Context, item []byte) (*results.Answer, error) {
	_, turn, end := k.r.q.f.deps.Turns.Begin(ctx)
	defer end()
	return results.DecodeAnswer(item, turn)
}

// fits says whether a has the shape of the answer to an instant query.
func (k *kept) fits(a *results.Answer) bool {
	scalar := k.r.q.expr.Type() == parser.ValueTypeScalar
	if a.Scalar != scalar || len(a.Extents) != 1 {
		return false
	}
	m := a.Extents[0].Series
	return slices.IndexFunc(m, func(s promql.Series) bool {
		return len(s.Floats)+len(s.Histograms) != 1 || scalar && len(s.Floats) != 1
	}) < 0 && (!scalar || len(m) == 1)
}

// lay returns the stretches of at that extents have, and those that they do not have.
func (k *kept) lay(held []results.Extent, at grid) (use []results.Extent, gaps []grid) {
	slices.SortFunc(held, func(a, b results.Extent) int { return int(a.Start - b.Start) })
	next := at.start
	last := at.at(at.len() - 1)
	for i := range held {
		e := &held[i]
		if e.End < next || e.Start > last || !usable(e, at.start, last) {
			continue
		}
		if e.Start > next {
			gaps = append(gaps, grid{next, e.Start - at.step, at.step})
		}
		use = append(use, e.Cut(results.Span{Start: max(e.Start, next), End: min(e.End, last)}))
		next = min(e.End, last) + at.step
		if at.step == 0 {
			return use, nil
		}
	}
	if next <= last {
		gaps = append(gaps, grid{next, last, at.step})
	}
	return use, gaps
}

// usable says whether e may be used for the times from start to end: what a note is about may be in any
// part of it, unless it is about the name of a series.
func usable(e *results.Extent, start, end int64) bool {
	return e.Start >= start && e.End <= end || !slices.ContainsFunc(e.Notes, func(n *querypb.Note) bool {
		return !n.Info || !strings.HasPrefix(n.Text, annotations.PossibleNonCounterInfo.Error())
	})
}

// extent is what was evaluated for a gap.
func (k *kept) extent(gap grid, m promql.Matrix, a answer) results.Extent {
	return results.Extent{Start: gap.start, End: gap.at(gap.len() - 1), At: k.begin, Series: m, Notes: work.NotesToWire(a.notes, k.r.q.asked.Text)}
}

// store keeps the extents that hold and those that were evaluated.
func (k *kept) store(ctx context.Context, entry *keptEntry, old, fresh []results.Extent) {
	var list []results.Extent
	for i := range fresh {
		e := &fresh[i]
		if end := e.Start + floorDiv(k.until-e.Start, k.grid.Step)*k.grid.Step; end < e.End {
			if end < e.Start || !usable(e, e.Start, end) {
				continue
			}
			cut := e.Cut(results.Span{Start: e.Start, End: end})
			e = &cut
		}
		list = append(list, *e)
	}
	for _, o := range old {
		if !slices.ContainsFunc(fresh, func(e results.Extent) bool { return o.Start <= e.End && e.Start <= o.End }) {
			list = append(list, o)
		}
	}
	if len(list) > 0 {
		k.put(ctx, entry, &results.Answer{Grid: k.grid, Text: k.r.q.asked.Text, Extents: list})
	}
}

func floorDiv(a, b int64) int64 {
	if a < 0 {
		return (a - b + 1) / b
	}
	return a / b
}

func (k *kept) put(ctx context.Context, entry *keptEntry, a *results.Answer) {
	_, turn, end := k.r.q.f.deps.Turns.Begin(ctx)
	item, err := a.Encode(k.cache.Most(), turn)
	end()
	if errors.Is(err, results.ErrTooLarge) {
		k.cache.Skip(results.TooLarge)
		return
	}
	if err != nil {
		k.r.q.f.deps.Logger.Warn("an answer could not be written down for the results cache", "err", err)
		return
	}
	ttl := k.ttl
	if n := len(a.Extents); a.Extents[n-1].End >= k.ooo && k.late > 0 {
		ttl = min(ttl, k.late)
	}
	k.mu.Lock()
	k.missing += len(item)
	k.mu.Unlock()
	entry.written = len(item)
	k.cache.Set(entry.key, item, ttl)
}

// single answers an instant query by the extent that there is, or by what was evaluated.
func (k *kept) single(ctx context.Context, entry *keptEntry, use []results.Extent, evaluated []answer) (answer, error) {
	at := k.grid.Phase
	scalar := k.r.q.expr.Type() == parser.ValueTypeScalar
	if len(use) > 0 {
		var out answer
		work.AddNotes(&out.notes, use[0].Notes)
		if out.value = vectorOf(use[0].Series); scalar {
			out.value = promql.Scalar{T: at, V: use[0].Series[0].Floats[0].F}
		}
		return out, nil
	}
	out := evaluated[0]
	var m promql.Matrix
	switch v := out.value.(type) {
	case promql.Vector:
		m = matrixOf(v)
	case promql.Scalar:
		m = promql.Matrix{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	default:
		return out, nil
	}
	k.put(ctx, entry, &results.Answer{Grid: k.grid, Scalar: scalar, Text: k.r.q.asked.Text, Extents: []results.Extent{k.extent(grid{start: at, end: at}, m, out)}})
	return out, nil
}

// day is the number of the part of time that t lies in.
func day(t, interval int64) int64 { return floorDiv(t, interval) }

// hits is how many bytes of items were used.
func (k *kept) hits() int {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hitBytes
}

// misses is how many bytes of items were written.
func (k *kept) misses() int {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.missing
}
