package querier

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// TenantLabel tells whose a series is, where several tenants are read at once.
	TenantLabel = "__tenant_id__"
	// ownTenantLabel keeps what a series had under that name itself.
	ownTenantLabel = "original_" + TenantLabel
)

// Federation reads the data of one or several tenants, those its caller's context names. Of several,
// each series has the label TenantLabel, and no tenant's limits are looser than alone. What one of them
// cannot answer, the whole does not, unless partial data is switched on and asked for.
type Federation struct {
	q          *Querier
	concurrent int
	partial    bool
}

var (
	_ storage.SampleAndChunkQueryable = (*Federation)(nil)
	_ storage.ExemplarQueryable       = (*Federation)(nil)
)

// NewFederation returns a reader of tenants by q, at most concurrent of them at the same time.
// Partial says that tenants which fail may be left out for requests that ask for that.
func NewFederation(q *Querier, concurrent int, partial bool) *Federation {
	return &Federation{q, max(1, concurrent), partial}
}

// Querier implements storage.Queryable.
func (f *Federation) Querier(mint, maxt int64) (storage.Querier, error) {
	return &federated{f: f, readers: readers[storage.Querier]{open: func() (storage.Querier, error) { return f.q.Querier(mint, maxt) }}}, nil
}

// readers are one of its own for each tenant, as what a reader may fetch is what its tenant may.
type readers[T io.Closer] struct {
	open func() (T, error)

	mu sync.Mutex // guards of
	of map[tenant.ID]T
}

// querier is the reader of one tenant.
func (r *readers[T]) querier(id tenant.ID) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x, ok := r.of[id]; ok {
		return x, nil
	}
	x, err := r.open()
	if err != nil {
		return x, err
	}
	if r.of == nil {
		r.of = map[tenant.ID]T{}
	}
	r.of[id] = x
	return x, nil
}

// Close closes all of them.
func (r *readers[T]) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first error
	for _, x := range r.of {
		if err := x.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// federated is one query's reader. A single tenant goes by without labels or merging.
type federated struct {
	f *Federation
	readers[storage.Querier]
}

// Select implements storage.Querier.
func (q *federated) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	if len(ids) == 1 {
		x, err := q.querier(ids[0])
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		return x.Select(ctx, sorted, hints, ms...)
	}
	ids, ms = selecting(ids, ms)
	if len(ids) == 0 {
		return storage.EmptySeriesSet()
	}
	sets, all := make([]storage.SeriesSet, len(ids)), make([]*tenantSet, len(ids))
	for i, id := range ids {
		x, err := q.querier(id)
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		// The selection of a tenant runs by itself as soon as it is asked for.
		all[i] = &tenantSet{SeriesSet: x.Select(tenant.Inject(ctx, id), true, hints, ms...), id: id}
		if q.f.spares(ctx) {
			all[i].spared = ctx
		}
		if sets[i] = all[i]; sorted {
			sets[i] = &ordered[storage.Series]{set: all[i]}
		}
	}
	var out storage.SeriesSet = &concatenated{sets: sets}
	if sorted {
		out = storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	}
	if q.f.spares(ctx) {
		return &partialSet{out, all}
	}
	return out
}

// chosen takes the matchers of TenantLabel out of ms and returns the tenants that they match.
func chosen(ids []tenant.ID, ms []*labels.Matcher) ([]tenant.ID, []*labels.Matcher) {
	var rest []*labels.Matcher
	for _, m := range ms {
		switch m.Name {
		case TenantLabel:
			ids = slices.DeleteFunc(slices.Clone(ids), func(id tenant.ID) bool { return !m.Matches(string(id)) })
		case ownTenantLabel:
			own := *m
			own.Name = TenantLabel
			rest = append(rest, &own)
		default:
			rest = append(rest, m)
		}
	}
	return ids, rest
}

// selecting is chosen for a selection of series: where all matchers were of TenantLabel, every series of
// these tenants is meant, and no matcher at all would be none.
func selecting(ids []tenant.ID, ms []*labels.Matcher) ([]tenant.ID, []*labels.Matcher) {
	ids, ms = chosen(ids, ms)
	if len(ms) == 0 {
		ms = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, "")}
	}
	return ids, ms
}

// tenantSet gives the series of a tenant its label.
type tenantSet struct {
	storage.SeriesSet
	id      tenant.ID
	builder labels.Builder
	spared  context.Context //nolint:containedctx // Of the selection: if it ends by itself, a failure is left out with a warning. Nil: it is not.
}

// At implements storage.SeriesSet.
func (s *tenantSet) At() storage.Series {
	x := s.SeriesSet.At()
	return labelled{x, withTenant(&s.builder, x.Labels(), s.id)}
}

// Err implements storage.SeriesSet.
func (s *tenantSet) Err() error {
	err := about(s.id, s.SeriesSet.Err())
	if s.spared != nil && missing(s.spared, err) {
		return nil
	}
	return err
}

// Warnings implements storage.SeriesSet.
func (s *tenantSet) Warnings() annotations.Annotations {
	out := s.SeriesSet.Warnings()
	if err := s.SeriesSet.Err(); s.spared != nil && missing(s.spared, err) {
		out = maps.Clone(out)
		out.Add(leftOut(s.id, err))
	}
	return out
}

// about says whose an error is.
func about(id tenant.ID, err error) error {
	if err == nil {
		return nil
	}
	return errs.New(errs.KindOf(err), "tenant %s: %w", id, err)
}

func withTenant(b *labels.Builder, ls labels.Labels, id tenant.ID) labels.Labels {
	b.Reset(ls)
	if own := ls.Get(TenantLabel); own != "" {
		b.Set(ownTenantLabel, own)
	}
	b.Set(TenantLabel, string(id))
	return b.Labels()
}

type labelled struct {
	storage.Series
	ls labels.Labels
}

// Labels implements storage.Series.
func (l labelled) Labels() labels.Labels { return l.ls }

// concatenated is sets one after the other: no two have a series in common, and whoever needs them
// sorted sorts.
type concatenated struct {
	sets []storage.SeriesSet
	at   int
}

// Next implements storage.SeriesSet.
func (c *concatenated) Next() bool {
	for ; c.at < len(c.sets); c.at++ {
		if c.sets[c.at].Next() {
			return true
		}
		if c.sets[c.at].Err() != nil {
			return false
		}
	}
	return false
}

// At implements storage.SeriesSet.
func (c *concatenated) At() storage.Series { return c.sets[c.at].At() }

// Err implements storage.SeriesSet.
func (c *concatenated) Err() error {
	for _, s := range c.sets {
		if err := s.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Warnings implements storage.SeriesSet.
func (c *concatenated) Warnings() annotations.Annotations {
	var out annotations.Annotations
	for _, s := range c.sets {
		out.Merge(s.Warnings())
	}
	return out
}

// each calls f for each tenant, several at the same time, and returns what it returned.
func each[T any](ctx context.Context, f *Federation, ids []tenant.ID, call func(ctx context.Context, id tenant.ID) (T, error)) ([]T, error) {
	out := make([]T, len(ids))
	g, ctx := errs.Together(ctx)
	g.SetLimit(f.concurrent)
	for i, id := range ids {
		g.Go(func() (err error) {
			out[i], err = call(tenant.Inject(ctx, id), id)
			return about(id, err)
		})
	}
	return out, g.Wait()
}

// LabelNames implements storage.Querier.
func (q *federated) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.labels(ctx, ms, func(ctx context.Context, x storage.Querier, ms []*labels.Matcher, several bool) ([]string, annotations.Annotations, error) {
		names, notes, err := x.LabelNames(ctx, hints, ms...)
		if several && len(names) > 0 {
			if slices.Contains(names, TenantLabel) {
				names = append(names, ownTenantLabel)
			}
			names = append(names, TenantLabel)
		}
		return names, notes, err
	})
}

// LabelValues implements storage.Querier.
func (q *federated) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(ids) > 1 && name == TenantLabel {
		ids, notes, err := q.having(ctx, ids, ms)
		var out []string
		for _, id := range ids {
			out = append(out, string(id))
		}
		return out, notes, err
	}
	if len(ids) > 1 && name == ownTenantLabel {
		name = TenantLabel
	}
	return q.labels(ctx, ms, func(ctx context.Context, x storage.Querier, ms []*labels.Matcher, _ bool) ([]string, annotations.Annotations, error) {
		return x.LabelValues(ctx, name, hints, ms...)
	})
}

// having returns the tenants that have series which match. Without matchers of other labels than
// TenantLabel nobody is asked.
func (q *federated) having(ctx context.Context, ids []tenant.ID, ms []*labels.Matcher) ([]tenant.ID, annotations.Annotations, error) {
	ids, ms = chosen(ids, ms)
	if len(ms) == 0 {
		return ids, nil, nil
	}
	found, notes, err := spare(ctx, q.f, ids, func(ctx context.Context, id tenant.ID) (bool, error) {
		x, err := q.querier(id)
		if err != nil {
			return false, err
		}
		names, _, err := x.LabelNames(ctx, &storage.LabelHints{Limit: 1}, ms...)
		return len(names) > 0, err
	})
	var out []tenant.ID
	for i, id := range ids {
		if found[i] {
			out = append(out, id)
		}
	}
	return out, notes, err
}

// oneCall asks for labels of one tenant, which may be one of several.
type oneCall func(ctx context.Context, x storage.Querier, ms []*labels.Matcher, several bool) ([]string, annotations.Annotations, error)

// labels unites what the tenants have.
func (q *federated) labels(ctx context.Context, ms []*labels.Matcher, call oneCall) ([]string, annotations.Annotations, error) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(ids) == 1 {
		x, err := q.querier(ids[0])
		if err != nil {
			return nil, nil, err
		}
		return call(ctx, x, ms, false)
	}
	ids, ms = chosen(ids, ms)
	if len(ids) == 0 {
		return nil, nil, nil
	}
	lists, notes, err := spare(ctx, q.f, ids, func(ctx context.Context, id tenant.ID) ([]string, error) {
		x, err := q.querier(id)
		if err != nil {
			return nil, err
		}
		list, _, err := call(ctx, x, ms, true)
		return list, err
	})
	if err != nil {
		return nil, nil, err
	}
	return union(lists), notes, nil
}

// ChunkQuerier implements storage.ChunkQueryable.
func (f *Federation) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := f.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &federatedChunks{LabelQuerier: q, chunks: readers[storage.ChunkQuerier]{open: func() (storage.ChunkQuerier, error) { return f.q.ChunkQuerier(mint, maxt) }}}, nil
}

// federatedChunks reads the chunks of tenants.
type federatedChunks struct {
	storage.LabelQuerier
	chunks readers[storage.ChunkQuerier]
}

// Close implements storage.ChunkQuerier.
func (q *federatedChunks) Close() error { return errors.Join(q.LabelQuerier.Close(), q.chunks.Close()) }

// Select implements storage.ChunkQuerier.
func (q *federatedChunks) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	several := len(ids) > 1
	if several {
		ids, ms = selecting(ids, ms)
	}
	var sets []storage.ChunkSeriesSet
	for _, id := range ids {
		x, err := q.chunks.querier(id)
		if err != nil {
			return storage.ErrChunkSeriesSet(err)
		}
		if !several {
			return x.Select(ctx, sorted, hints, ms...)
		}
		one := &tenantChunks{ChunkSeriesSet: x.Select(tenant.Inject(ctx, id), true, hints, ms...), id: id}
		sets = append(sets, &ordered[storage.ChunkSeries]{set: one})
	}
	return storage.NewMergeChunkSeriesSet(sets, 0, storage.NewConcatenatingChunkSeriesMerger())
}

// tenantChunks is tenantSet for chunks.
type tenantChunks struct {
	storage.ChunkSeriesSet
	id      tenant.ID
	builder labels.Builder
}

// At implements storage.ChunkSeriesSet.
func (s *tenantChunks) At() storage.ChunkSeries {
	x := s.ChunkSeriesSet.At()
	return labelledChunks{x, withTenant(&s.builder, x.Labels(), s.id)}
}

// Err implements storage.ChunkSeriesSet.
func (s *tenantChunks) Err() error { return about(s.id, s.ChunkSeriesSet.Err()) }

type labelledChunks struct {
	storage.ChunkSeries
	ls labels.Labels
}

// Labels implements storage.ChunkSeries.
func (l labelledChunks) Labels() labels.Labels { return l.ls }

// Iterator implements storage.ChunkSeries.
func (l labelledChunks) Iterator(it chunks.Iterator) chunks.Iterator {
	return l.ChunkSeries.Iterator(it)
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (f *Federation) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil, err
	}
	if len(ids) == 1 {
		return f.q.ExemplarQuerier(ctx)
	}
	return federatedExemplars{ctx, f, ids}, nil
}

type federatedExemplars struct {
	ctx context.Context //nolint:containedctx // The interface has its context here.
	f   *Federation
	ids []tenant.ID
}

// Select implements storage.ExemplarQuerier.
func (q federatedExemplars) Select(start, end int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	lists, err := each(q.ctx, q.f, q.ids, func(ctx context.Context, id tenant.ID) ([]exemplar.QueryResult, error) {
		var mine [][]*labels.Matcher
		for _, ms := range sets {
			if ids, rest := selecting([]tenant.ID{id}, ms); len(ids) == 1 {
				mine = append(mine, rest)
			}
		}
		if len(mine) == 0 {
			return nil, nil
		}
		x, err := q.f.q.ExemplarQuerier(ctx)
		if err != nil {
			return nil, err
		}
		list, err := x.Select(start, end, mine...)
		var b labels.Builder
		for i := range list {
			list[i].SeriesLabels = withTenant(&b, list[i].SeriesLabels, id)
		}
		return list, err
	})
	if err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

// Metadata returns the metadata of all tenants together, as Querier.Metadata does.
func (f *Federation) Metadata(ctx context.Context, metric string, limit, perMetric int) (map[string][]metadata.Metadata, error) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil, err
	}
	lists, err := each(ctx, f, ids, func(ctx context.Context, _ tenant.ID) (map[string][]metadata.Metadata, error) {
		return f.q.Metadata(ctx, metric, limit, perMetric)
	})
	if err != nil {
		return nil, err
	}
	out := lists[0]
	for _, m := range lists[1:] {
		for name, entries := range m {
			known, ok := out[name]
			if !ok && limit >= 0 && len(out) >= limit {
				continue
			}
			for _, e := range entries {
				if !slices.Contains(known, e) && (perMetric < 1 || len(known) < perMetric) {
					known = append(known, e)
				}
			}
			out[name] = known
		}
	}
	return out, nil
}
