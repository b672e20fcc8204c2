package querier

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// RecentSeries calls f for each series in the ingesters of ctx's tenant that matches, once and sorted by
// labels: of all that they hold, or with active of those that have had samples of late. Errors:
// Unavailable if too few replicas answered or the process is short of memory, TooLarge over a limit,
// and those of f.
func (q *Querier) RecentSeries(ctx context.Context, active bool, ms []*labels.Matcher, f func(labels.Labels) error) error {
	release, err := q.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	sc, err := q.scope(ctx, math.MinInt64/2, q.deps.Now().UnixMilli())
	if err != nil || !sc.ingesters {
		return err
	}
	b := newBudget(ctx, q, sc.limits)
	defer b.release()
	hints := storage.SelectHints{Start: sc.mint, End: math.MaxInt64 / 2, Func: seriesOnly}
	if active {
		hints.Func = activeOnly
	}
	set, left, err := q.recentlyHidden(ctx, sc, ms, b)
	if err != nil {
		return err
	}
	sources, err := q.selectIngesters(ctx, sc, hints, ms, b)
	if err != nil {
		return err
	}
	m := newMerger(sources, q.metrics)
	for m.next() {
		if _, some := left[m.lset.Hash()]; !some && len(set.Of(m.lset)) > 0 {
			continue
		}
		if err := f(m.lset); err != nil {
			return err
		}
	}
	return m.failure
}

// recentAge is the age of the oldest samples in memory as far as retention is concerned.
const recentAge = 25 * time.Hour

// recentlyHidden returns the tombstones that bear on what ingesters hold, and of which touched series
// samples are left there.
func (q *Querier) recentlyHidden(ctx context.Context, sc scope, ms []*labels.Matcher, b *budget) (tombstone.Set, map[uint64]struct{}, error) {
	sc.blocks, sc.maxt = false, math.MaxInt64/2
	set, err := q.hidden(ctx, sc)
	oldest := q.deps.Now().Add(-recentAge).UnixMilli()
	set = set.Pick(func(t *tombstone.Tombstone) bool { return !t.Lapses() || t.MaxTime >= oldest })
	if err != nil || set.Empty() {
		return set, nil, err
	}
	left, err := q.left(ctx, sc, storage.SelectHints{Start: sc.mint, End: sc.maxt}, ms, set, b)
	return set, left, err
}

// activeOnly is the hint that asks for the labels of active series.
const activeOnly = "active series"

// activeOne is selectOne for the labels of active series.
func (q *Querier) activeOne(ctx context.Context, c ingesterpb.IngesterQueryClient, _ storage.SelectHints, matchers []*labels.Matcher, b *budget) (*fetched, error) {
	stream, err := c.ActiveSeries(ctx, &ingesterpb.ActiveSeriesRequest{Matchers: toWire(matchers)})
	if err != nil {
		return nil, err
	}
	out := &fetched{}
	var builder labels.ScratchBuilder
	err = receive(ctx, q.deps.Turns, stream.Recv, func(m *ingesterpb.ActiveSeriesResponse) error {
		for _, s := range m.Series {
			lset, err := toLabels(&builder, s.Labels)
			if err != nil {
				return err
			}
			if err := b.chargeSeries(lset); err != nil {
				return err
			}
			out.series = append(out.series, fetchedSeries{lset: lset})
		}
		return nil
	})
	slices.SortFunc(out.series, func(a, b fetchedSeries) int { return labels.Compare(a.lset, b.lset) })
	return out, err
}
