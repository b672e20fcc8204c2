package ingester

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// Exemplars returns the kept exemplars of the series that any set of matchers selects.
func (i *Ingester) Exemplars(ctx context.Context, req *ingesterpb.ExemplarsRequest) (*ingesterpb.ExemplarsResponse, error) {
	r, err := i.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	out := &ingesterpb.ExemplarsResponse{}
	if r.t == nil {
		return out, nil
	}
	sets, err := matcherSets(req.Matchers)
	if err != nil {
		return nil, err
	}
	q, err := r.t.head.ExemplarQuerier(ctx)
	if err != nil {
		return nil, fmt.Errorf("query exemplars of tenant %s: %w", r.t.id, err)
	}
	found, err := q.Select(req.MinTime, req.MaxTime, sets...)
	if err != nil {
		return nil, fmt.Errorf("query exemplars of tenant %s: %w", r.t.id, err)
	}
	n := 0
	for _, s := range found {
		series := &ingesterpb.SeriesExemplars{Labels: pairs(s.SeriesLabels)}
		for _, e := range s.Exemplars {
			series.Exemplars = append(series.Exemplars, &ingesterpb.Exemplar{Labels: pairs(e.Labels), Value: e.Value, Time: e.Ts})
		}
		n += len(s.Exemplars)
		out.Series = append(out.Series, series)
	}
	i.metrics.queriedExemplars.Observe(float64(n))
	return out, nil
}

func matcherSets(in []*ingesterpb.Matchers) ([][]*labels.Matcher, error) {
	var out [][]*labels.Matcher
	for _, set := range in {
		ms, err := matchersOf(set.Matchers)
		if err != nil {
			return nil, err
		}
		out = append(out, ms)
	}
	return out, nil
}

// querier opens a querier of the read's tenant over matchers; it must be closed.
func (r *read) querier(mint, maxt int64, in []*ingesterpb.Matcher) (storage.Querier, []*labels.Matcher, error) {
	ms, err := matchersOf(in)
	if err != nil {
		return nil, nil, err
	}
	q, err := r.t.head.Querier(mint, maxt)
	if err != nil {
		return nil, nil, fmt.Errorf("query tenant %s: %w", r.t.id, err)
	}
	return q, ms, nil
}

// LabelNames returns sorted label names.
func (i *Ingester) LabelNames(ctx context.Context, req *ingesterpb.LabelNamesRequest) (*ingesterpb.LabelNamesResponse, error) {
	names, err := i.labelStrings(ctx, req.MinTime, req.MaxTime, req.Matchers, req.Limit,
		func(q storage.Querier, hints *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
			names, _, err := q.LabelNames(ctx, hints, ms...)
			return names, err
		})
	return &ingesterpb.LabelNamesResponse{Names: names, CompleteSince: i.completeSince.Load()}, err
}

// LabelValues returns the sorted values of one label.
func (i *Ingester) LabelValues(ctx context.Context, req *ingesterpb.LabelValuesRequest) (*ingesterpb.LabelValuesResponse, error) {
	values, err := i.labelStrings(ctx, req.MinTime, req.MaxTime, req.Matchers, req.Limit,
		func(q storage.Querier, hints *storage.LabelHints, ms []*labels.Matcher) ([]string, error) {
			values, _, err := q.LabelValues(ctx, req.Name, hints, ms...)
			return values, err
		})
	return &ingesterpb.LabelValuesResponse{Values: values, CompleteSince: i.completeSince.Load()}, err
}

// yieldEvery is after how many labels others may go first.
const yieldEvery = 1000

// labelStrings asks the tenant of ctx for strings and returns copies, which outlive the querier.
func (i *Ingester) labelStrings(ctx context.Context, mint, maxt int64, in []*ingesterpb.Matcher, limit uint64,
	ask func(storage.Querier, *storage.LabelHints, []*labels.Matcher) ([]string, error)) ([]string, error) {
	r, err := i.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	if r.t == nil {
		return nil, nil
	}
	q, ms, err := r.querier(mint, maxt, in)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	_, turn, end := i.turns.Begin(ctx)
	defer end()
	found, err := ask(q, &storage.LabelHints{Limit: int(min(limit, math.MaxInt32))}, ms)
	if err != nil {
		return nil, fmt.Errorf("query labels of tenant %s: %w", r.t.id, err)
	}
	if limit > 0 && uint64(len(found)) > limit {
		found = found[:limit]
	}
	out := make([]string, len(found))
	for k, s := range found {
		if k%yieldEvery == 0 {
			turn.Yield()
		}
		out[k] = strings.Clone(s)
	}
	slices.Sort(out)
	return out, nil
}

// Series streams the sorted labels of the series that any set of matchers selects.
func (i *Ingester) Series(req *ingesterpb.SeriesRequest, to grpc.ServerStreamingServer[ingesterpb.SeriesResponse]) error {
	ctx := to.Context()
	r, err := i.beginRead(ctx)
	if err != nil {
		return err
	}
	defer r.end()
	first := &ingesterpb.SeriesResponse{CompleteSince: i.completeSince.Load()}
	if r.t == nil {
		return to.Send(first)
	}
	sets, err := matcherSets(req.Matchers)
	if err != nil {
		return err
	}
	q, err := r.t.head.Querier(req.MinTime, req.MaxTime)
	if err != nil {
		return fmt.Errorf("query tenant %s: %w", r.t.id, err)
	}
	ctx, _, end := i.turns.Begin(ctx)
	defer end()
	err = sendSeries(ctx, q, sets, req, first, to)
	return errors.Join(err, q.Close())
}

// sendSeries streams the series of sets; msg is the first message, sent in any case.
func sendSeries(ctx context.Context, q storage.Querier, sets [][]*labels.Matcher, req *ingesterpb.SeriesRequest,
	msg *ingesterpb.SeriesResponse, to grpc.ServerStreamingServer[ingesterpb.SeriesResponse]) error {
	hints := &storage.SelectHints{Start: req.MinTime, End: req.MaxTime, Func: "series", Limit: int(min(req.Limit, math.MaxInt32))}
	var selected []storage.SeriesSet
	for _, ms := range sets {
		selected = append(selected, q.Select(ctx, true, hints, ms...))
	}
	turn := turns.Of(ctx)
	send := func() error {
		turn.Rest() // the reader may be slow
		defer turn.Resume()
		return to.Send(msg)
	}
	if len(selected) == 0 {
		return send()
	}
	set := storage.NewMergeSeriesSet(selected, int(min(req.Limit, math.MaxInt32)), storage.ChainedSeriesMerge)
	sent := uint64(0)
	for set.Next() && (req.Limit == 0 || sent < req.Limit) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		turn.Yield()
		msg.Series = append(msg.Series, &ingesterpb.SeriesLabels{Labels: pairs(set.At().Labels())})
		sent++
		if len(msg.Series) >= messageSeries {
			if err := send(); err != nil {
				return err
			}
			msg = &ingesterpb.SeriesResponse{}
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("select series: %w", err)
	}
	if len(msg.Series) == 0 && msg.CompleteSince == 0 {
		return nil
	}
	return send()
}

// Metadata returns metadata of the tenant's metrics.
func (i *Ingester) Metadata(ctx context.Context, req *ingesterpb.MetadataRequest) (*ingesterpb.MetadataResponse, error) {
	r, err := i.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	out := &ingesterpb.MetadataResponse{}
	if r.t == nil {
		return out, nil
	}
	for _, m := range r.t.metadata.list(req.Metric, req.Limit, req.LimitPerMetric) {
		out.Metadata = append(out.Metadata, &ingesterpb.Metadata{Name: m.Name, Type: m.Type, Help: m.Help, Unit: m.Unit})
	}
	return out, nil
}

// TenantStats returns the rates and the number of series of one tenant.
func (i *Ingester) TenantStats(ctx context.Context, req *ingesterpb.TenantStatsRequest) (*ingesterpb.TenantStatsResponse, error) {
	out := &ingesterpb.TenantStatsResponse{Now: i.now().UnixMilli()} // before what is late is looked at
	r, err := i.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer r.end()
	if req.GetLateOnly() {
		id, err := tenant.FromContext(ctx)
		if err != nil {
			return nil, err
		}
		i.late.tell(id, out)
		return out, nil
	}
	if r.t == nil {
		return out, nil
	}
	stats := r.t.statsNow()
	stats.Now = out.Now
	return stats, nil
}

// AllTenantStats returns those of all tenants, sorted by tenant.
func (i *Ingester) AllTenantStats(context.Context, *ingesterpb.TenantStatsRequest) (*ingesterpb.AllTenantStatsResponse, error) {
	if !i.readable.Load() {
		return nil, errNotReadable
	}
	tenants := i.all()
	slices.SortFunc(tenants, func(a, b *tenantHead) int { return strings.Compare(string(a.id), string(b.id)) })
	out := &ingesterpb.AllTenantStatsResponse{}
	for _, t := range tenants {
		if t.enter() {
			out.Tenants = append(out.Tenants, &ingesterpb.TenantIDStats{Tenant: string(t.id), Stats: t.statsNow()})
			t.leave()
		}
	}
	return out, nil
}

// statsNow needs an open head.
func (t *tenantHead) statsNow() *ingesterpb.TenantStatsResponse {
	api, rule := t.stats.api.perSecond(), t.stats.rule.perSecond()
	n := t.activity.counts()
	samples, bytes, since := t.pending.lag()
	newest := t.head.MaxTime()
	if t.head.NumSeries() == 0 || newest < 0 {
		newest = 0
	}
	return &ingesterpb.TenantStatsResponse{NewestSample: newest, PendingSamples: uint64(samples), PendingBytes: uint64(bytes), OldestPending: since,
		IngestionRate: api + rule, ApiIngestionRate: api, RuleIngestionRate: rule,
		Series: t.head.NumSeries(), ActiveSeries: uint64(max(0, n.active)), OwnedSeries: uint64(max(0, n.owned))}
}

// openTenant returns the tenant if it has anything here. Errors: NotFound.
func (i *Ingester) openTenant(id tenant.ID) (*tenantHead, error) {
	t := i.lookup(id)
	if t == nil {
		return nil, errs.New(errs.NotFound, "tenant %s has no recent data on this ingester", id)
	}
	return t, nil
}
