package ruletest

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sort"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	staleness "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// memory holds the series of one test. It belongs to one goroutine, but for reads of queries.
type memory struct {
	most, samples int
	byName        map[string][]*series
	byLabels      map[string]*series
}

// series is one with its samples, in order.
type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// sample is one value: h if it is set, f otherwise.
type sample struct {
	t int64
	f float64
	h *histogram.FloatHistogram
}

// T implements chunks.Sample.
func (s sample) T() int64 { return s.t }

// ST implements chunks.Sample.
func (s sample) ST() int64 { return 0 }

// F implements chunks.Sample.
func (s sample) F() float64 { return s.f }

// H implements chunks.Sample.
func (s sample) H() *histogram.Histogram { return nil }

// FH implements chunks.Sample.
func (s sample) FH() *histogram.FloatHistogram { return s.h }

// Type implements chunks.Sample.
func (s sample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// Copy implements chunks.Sample.
func (s sample) Copy() chunks.Sample {
	if s.h != nil {
		s.h = s.h.Copy()
	}
	return s
}

// weight is how many samples a value counts as: histograms are large.
func (s sample) weight() int {
	if s.h == nil {
		return 1
	}
	return 2 + (len(s.h.PositiveBuckets)+len(s.h.NegativeBuckets)+len(s.h.PositiveSpans)+len(s.h.NegativeSpans))/4
}

func newMemory(most int) *memory {
	return &memory{most: most, byName: map[string][]*series{}, byLabels: map[string]*series{}}
}

// add adds a sample to a series. Errors: Invalid over the limit, and those of upstream's storage for samples
// that are out of order.
func (m *memory) add(ls labels.Labels, x sample) error {
	if m.samples += x.weight(); m.samples > m.most {
		return errs.New(errs.Invalid, "a test may have at most %d samples, those that rules record included", m.most)
	}
	key := ls.String()
	s := m.byLabels[key]
	if s == nil {
		s = &series{labels: ls}
		m.byLabels[key] = s
		name := ls.Get(model.MetricNameLabel)
		m.byName[name] = append(m.byName[name], s)
	}
	if n := len(s.samples); n > 0 {
		last := s.samples[n-1]
		switch {
		case x.t < last.T():
			return storage.ErrOutOfOrderSample
		case x.t == last.T() && (x.h != nil || last.FH() != nil || math.Float64bits(x.f) != math.Float64bits(last.F())):
			return storage.ErrDuplicateSampleForTimestamp
		case x.t == last.T():
			return nil
		}
	}
	if x.h != nil {
		x.h = x.h.Copy() // repeated values of a test are one histogram
		x.h.CounterResetHint = s.hint(x.h)
	}
	s.samples = append(s.samples, x)
	return nil
}

// hint is what upstream's storage says with h, which comes next, of resets of its counter. What is unlike the
// sample before begins a new chunk there, and the first of a chunk does not know.
func (s *series) hint(h *histogram.FloatHistogram) histogram.CounterResetHint {
	if h.CounterResetHint == histogram.GaugeType || h.CounterResetHint == histogram.CounterReset {
		return h.CounterResetHint
	}
	n := len(s.samples)
	if n == 0 {
		return histogram.UnknownCounterReset
	}
	last := s.samples[n-1].FH()
	switch {
	case last == nil, last.CounterResetHint == histogram.GaugeType, staleness.IsStaleNaN(last.Sum), staleness.IsStaleNaN(h.Sum):
		return histogram.UnknownCounterReset
	case h.Schema != last.Schema, h.ZeroThreshold != last.ZeroThreshold, h.DetectReset(last):
		return histogram.CounterReset
	}
	return histogram.NotCounterReset
}

// Querier implements storage.Queryable.
func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{m, mint, maxt}, nil
}

type querier struct {
	m          *memory
	mint, maxt int64
}

// Select implements storage.Querier.
func (q *querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	look := func(all []*series) {
		for _, s := range all {
			if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
				continue
			}
			from := sort.Search(len(s.samples), func(i int) bool { return s.samples[i].T() >= q.mint })
			to := sort.Search(len(s.samples), func(i int) bool { return s.samples[i].T() > q.maxt })
			if from < to {
				found = append(found, storage.NewListSeries(s.labels, s.samples[from:to]))
			}
		}
	}
	i := slices.IndexFunc(matchers, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual })
	if i >= 0 {
		look(q.m.byName[matchers[i].Value])
	} else {
		for _, all := range q.m.byName {
			look(all)
		}
	}
	slices.SortFunc(found, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &seriesSet{all: found}
}

// LabelValues implements storage.Querier. Expressions do not ask for them.
func (*querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errUnused()
}

// LabelNames implements storage.Querier.
func (*querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, errUnused()
}

// Close implements storage.Querier.
func (*querier) Close() error { return nil }

// seriesSet is a list of series.
type seriesSet struct {
	all []storage.Series
	now storage.Series
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	if len(s.all) == 0 {
		return false
	}
	s.now, s.all = s.all[0], s.all[1:]
	return true
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.now }

// Err implements storage.SeriesSet.
func (*seriesSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// Appender implements storage.Appendable.
func (m *memory) Appender(context.Context) storage.Appender { return &appender{m: m} }

// appender adds what rules record once it is committed.
type appender struct {
	m       *memory
	pending []recorded
}

type recorded struct {
	labels labels.Labels
	sample sample
}

// Append implements storage.Appender.
func (a *appender) Append(_ storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	a.pending = append(a.pending, recorded{ls, sample{t: t, f: v}})
	return 0, nil
}

// AppendHistogram implements storage.Appender.
func (a *appender) AppendHistogram(_ storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	if h != nil {
		fh = h.ToFloat(nil)
	}
	a.pending = append(a.pending, recorded{ls, sample{t: t, h: fh.Copy()}})
	return 0, nil
}

// Commit implements storage.Appender.
func (a *appender) Commit() error {
	slices.SortStableFunc(a.pending, func(x, y recorded) int { return cmp.Compare(x.sample.t, y.sample.t) })
	for _, x := range a.pending {
		if err := a.m.add(x.labels, x.sample); err != nil {
			return err
		}
	}
	a.pending = nil
	return nil
}

// Rollback implements storage.Appender.
func (a *appender) Rollback() error {
	a.pending = nil
	return nil
}

// SetOptions implements storage.Appender.
func (*appender) SetOptions(*storage.AppendOptions) {}

// AppendExemplar implements storage.Appender.
func (*appender) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return 0, errUnused()
}

// UpdateMetadata implements storage.Appender.
func (*appender) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return 0, errUnused()
}

// AppendSTZeroSample implements storage.Appender.
func (*appender) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return 0, errUnused()
}

// AppendHistogramSTZeroSample implements storage.Appender.
func (*appender) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, errUnused()
}

func errUnused() error {
	return errs.New(errs.Internal, "tests of rules need samples alone")
}
