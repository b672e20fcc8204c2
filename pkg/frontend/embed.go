package frontend

import (
	"context"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// embedded is the answers of the leaves by their names, as the storage of the outer query.
type embedded map[string]promql.Matrix

// Querier implements storage.Queryable.
func (e embedded) Querier(int64, int64) (storage.Querier, error) { return embeddedQuerier{e}, nil }

type embeddedQuerier struct{ leaves embedded }

// Select implements storage.Querier.
func (q embeddedQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			return &embeddedSet{series: q.leaves[m.Value], at: -1}
		}
	}
	return storage.ErrSeriesSet(errs.New(errs.Internal, "the outer query selects what is no leaf"))
}

// LabelValues implements storage.Querier; queries do not call it.
func (embeddedQuerier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier; queries do not call it.
func (embeddedQuerier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// Close implements storage.Querier.
func (embeddedQuerier) Close() error { return nil }

type embeddedSet struct {
	series promql.Matrix
	at     int
}

// Next implements storage.SeriesSet.
func (s *embeddedSet) Next() bool { s.at++; return s.at < len(s.series) }

// At implements storage.SeriesSet.
func (s *embeddedSet) At() storage.Series { return promql.NewStorageSeries(s.series[s.at]) }

// Err implements storage.SeriesSet.
func (*embeddedSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (*embeddedSet) Warnings() annotations.Annotations { return nil }
