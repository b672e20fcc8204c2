package querier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// exemplars are in the ingesters alone.
type exemplars struct {
	q   *Querier
	ctx context.Context // the interface's Select takes none
}

// ExemplarQuerier returns the exemplars that the ingesters hold of ctx's tenant.
func (q *Querier) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return exemplars{q, ctx}, nil
}

// Select returns the exemplars with start <= t <= end of the series that match all matchers of any
// set, sorted by series and time, each once.
func (e exemplars) Select(start, end int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	req := &ingesterpb.ExemplarsRequest{MinTime: start, MaxTime: end}
	for _, ms := range matchers {
		req.Matchers = append(req.Matchers, &ingesterpb.Matchers{Matchers: toWire(ms)})
	}
	answers, sc, err := everyReplica(e.ctx, e.q, start, end, func(ctx context.Context, sc scope, c ingesterpb.IngesterQueryClient) (*ingesterpb.ExemplarsResponse, error) {
		req := &ingesterpb.ExemplarsRequest{MinTime: sc.mint, MaxTime: sc.maxt, Matchers: req.Matchers}
		return c.Exemplars(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	hidden, err := e.q.hidden(e.ctx, sc)
	if err != nil {
		return nil, err
	}
	merged := map[string]*exemplar.QueryResult{}
	var b labels.ScratchBuilder
	for _, a := range answers {
		for _, s := range a.Series {
			lset, err := toLabels(&b, s.Labels)
			if err != nil {
				return nil, err
			}
			key := string(lset.Bytes(nil))
			if merged[key] == nil {
				merged[key] = &exemplar.QueryResult{SeriesLabels: lset}
			}
			for _, x := range s.Exemplars {
				ls, err := toLabels(&b, x.Labels)
				if err != nil {
					return nil, err
				}
				if x.Time >= sc.mint && x.Time <= sc.maxt {
					merged[key].Exemplars = append(merged[key].Exemplars, exemplar.Exemplar{Labels: ls, Value: x.Value, Ts: x.Time, HasTs: true})
				}
			}
		}
	}
	out := make([]exemplar.QueryResult, 0, len(merged))
	for _, r := range merged {
		slices.SortFunc(r.Exemplars, compareExemplars)
		r.Exemplars = slices.CompactFunc(r.Exemplars, func(a, b exemplar.Exemplar) bool { return compareExemplars(a, b) == 0 })
		r.Exemplars = withoutHidden(r.Exemplars, hidden.Of(r.SeriesLabels))
		if len(r.Exemplars) > 0 {
			out = append(out, *r)
		}
	}
	slices.SortFunc(out, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return out, nil
}

func compareExemplars(a, b exemplar.Exemplar) int {
	return cmp.Or(cmp.Compare(a.Ts, b.Ts), cmp.Compare(a.Value, b.Value), labels.Compare(a.Labels, b.Labels))
}

// everyReplica asks a quorum of the ingesters of ctx's tenant. If the tenant's lookback leaves
// nothing of the range, nobody is asked.
func everyReplica[T any](ctx context.Context, q *Querier, mint, maxt int64, f func(context.Context, scope, ingesterpb.IngesterQueryClient) (T, error)) ([]T, scope, error) {
	release, err := q.acquire(ctx)
	if err != nil {
		return nil, scope{}, err
	}
	defer release()
	sc, err := q.scope(ctx, mint, maxt)
	if err != nil || sc.empty {
		return nil, sc, err
	}
	if !sc.ingesters { // the range is in blocks, but what is asked for is in ingesters alone
		if sc.replicas, err = q.replicas(sc); err != nil {
			return nil, sc, err
		}
	}
	answers, err := ask(ctx, q, sc.replicas, mint, func(ctx context.Context, c ingesterpb.IngesterQueryClient) (T, error) { return f(ctx, sc, c) })
	return answers, sc, err
}

// Metadata returns what is known of the tenant's metric families, by name: of metric, or of all if
// that is empty. What senders said lately counts; of metrics that nobody sends any more, what is stored
// beside their blocks. A negative limit of families is none, and so is one below 1 of the entries of each.
func (q *Querier) Metadata(ctx context.Context, metric string, limit, limitPerMetric int) (map[string][]metadata.Metadata, error) {
	out := map[string][]metadata.Metadata{}
	if limit == 0 {
		return out, nil
	}
	if limitPerMetric < 1 {
		limitPerMetric = -1 // 0 is no limit here, as in Prometheus
	}
	hidden, err := q.requested(ctx)
	if err != nil {
		return nil, err
	}
	req := &ingesterpb.MetadataRequest{Metric: metric, Limit: int64(limit), LimitPerMetric: int64(limitPerMetric)}
	if !hidden.Empty() {
		req.Limit, req.LimitPerMetric = -1, -1 // some may be left out here
	}
	answers, _, err := everyReplica(ctx, q, math.MinInt64, math.MaxInt64, func(ctx context.Context, _ scope, c ingesterpb.IngesterQueryClient) (*ingesterpb.MetadataResponse, error) {
		return c.Metadata(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		for _, m := range a.Metadata {
			md := metadata.Metadata{Type: model.MetricType(m.Type), Unit: m.Unit, Help: m.Help}
			if !slices.Contains(out[m.Name], md) {
				out[m.Name] = append(out[m.Name], md)
			}
		}
	}
	if err := q.addDescribed(ctx, metric, out); err != nil {
		return nil, err
	}
	if err := q.dropDeleted(ctx, hidden, out); err != nil {
		return nil, err
	}
	clip(out, limit, limitPerMetric)
	return out, nil
}

// requested are the tombstones of requests to delete series.
func (q *Querier) requested(ctx context.Context) (tombstone.Set, error) {
	if q.deps.Tombstones == nil {
		return tombstone.Set{}, nil
	}
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return tombstone.Set{}, err
	}
	set, err := q.deps.Tombstones(ctx, id)
	return set.Pick(func(t *tombstone.Tombstone) bool { return !t.Lapses() }), err
}

// familySuffixes are what names of series have beyond that of their metric family.
var familySuffixes = []string{"", "_bucket", "_sum", "_count", "_total", "_created", "_info"}

// dropDeleted takes out the families all of whose series are deleted, and those that a request names
// and of which there is no series.
func (q *Querier) dropDeleted(ctx context.Context, hidden tombstone.Set, out map[string][]metadata.Metadata) (err error) {
	if hidden.Empty() || len(out) == 0 {
		return nil
	}
	s := newSession(q, math.MinInt64/2, q.deps.Now().UnixMilli())
	defer func() { err = errors.Join(err, s.Close()) }()
	shown, _, err := s.LabelValues(ctx, model.MetricNameLabel, nil)
	if err != nil {
		return fmt.Errorf("find metrics that are deleted: %w", err)
	}
	stored, err := valuesOf(model.MetricNameLabel)(ctx, s, nil, nil)
	if err != nil {
		return fmt.Errorf("find metrics that are deleted: %w", err)
	}
	for name := range out {
		there, left, named := false, false, false
		for _, suffix := range familySuffixes {
			_, is := slices.BinarySearch(stored, name+suffix)
			_, shows := slices.BinarySearch(shown, name+suffix)
			there, left = there || is, left || shows
			named = named || len(hidden.Of(labels.FromStrings(model.MetricNameLabel, name+suffix))) > 0
		}
		if !left && (there || named) {
			delete(out, name)
		}
	}
	return nil
}

// addDescribed adds metrics that ingesters do not know. That they cannot be read is no reason to
// refuse those that are known.
func (q *Querier) addDescribed(ctx context.Context, metric string, out map[string][]metadata.Metadata) error {
	if q.deps.Described == nil || len(out[metric]) > 0 {
		return nil
	}
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	all, err := q.deps.Described(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("read metadata: %w", context.Cause(ctx))
		}
		q.deps.Logger.Warn("metadata beside the blocks not read, metrics that nobody sends any more are left out", "tenant", id, "err", err)
		return nil
	}
	recent := make(map[string]bool, len(out))
	for name := range out {
		recent[name] = true
	}
	for _, m := range all {
		if !recent[m.Name] && (metric == "" || m.Name == metric) {
			out[m.Name] = append(out[m.Name], metadata.Metadata{Type: model.MetricType(m.Type), Unit: m.Unit, Help: m.Help})
		}
	}
	return nil
}

// clip brings the same order and the same limits to whatever the replicas answered.
func clip(all map[string][]metadata.Metadata, limit, limitPerMetric int) {
	for name, ms := range all {
		slices.SortFunc(ms, func(a, b metadata.Metadata) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
		})
		if limitPerMetric > 0 && len(ms) > limitPerMetric {
			all[name] = ms[:limitPerMetric]
		}
	}
	if limit > 0 && len(all) > limit {
		for _, name := range slices.Sorted(maps.Keys(all))[limit:] {
			delete(all, name)
		}
	}
}

// Stats is what a tenant has in the ingesters, replicas counted once.
type Stats struct {
	Series            uint64
	IngestionRate     float64 // samples per second
	APIIngestionRate  float64
	RuleIngestionRate float64
}

// TenantStats adds up the ingesters of ctx's tenant. A sum needs them all, so one that fails is an
// error. Errors: Unavailable.
func (q *Querier) TenantStats(ctx context.Context) (Stats, error) {
	sc, err := q.scope(ctx, math.MinInt64, math.MaxInt64)
	if err != nil {
		return Stats{}, err
	}
	set, err := q.replicas(sc)
	if err != nil {
		return Stats{}, err
	}
	set.MaxErrors, set.MaxUnavailableZones = 0, 0
	answers, err := ask(ctx, q, set, math.MinInt64, func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*ingesterpb.TenantStatsResponse, error) {
		return c.TenantStats(ctx, &ingesterpb.TenantStatsRequest{})
	})
	if err != nil {
		return Stats{}, err
	}
	var sum Stats
	for _, a := range answers {
		sum.Series += a.Series
		sum.IngestionRate += a.IngestionRate
		sum.APIIngestionRate += a.ApiIngestionRate
		sum.RuleIngestionRate += a.RuleIngestionRate
	}
	copies := max(q.deps.Ingesters.ReplicationFactor(), 1)
	sum.Series /= uint64(copies)
	sum.IngestionRate /= float64(copies)
	sum.APIIngestionRate /= float64(copies)
	sum.RuleIngestionRate /= float64(copies)
	return sum, nil
}
