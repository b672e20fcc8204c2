package ruler

import (
	"context"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// appendable gives out appenders that push for the tenant, whoever the rule reads.
type appendable struct{ w *worker }

// Appender implements storage.Appendable.
func (a appendable) Appender(ctx context.Context) storage.Appender {
	return &appender{ctx: ctx, w: a.w, symbols: writev2.NewSymbolTable()}
}

// appender collects what one evaluation of a rule gives and pushes it as one request, so that all of
// it becomes visible at once. It is used by one goroutine.
type appender struct {
	ctx     context.Context // of the evaluation that it belongs to
	w       *worker
	symbols writev2.SymbolsTable
	series  []writev2.TimeSeries
}

// add begins a series.
func (a *appender) add(ls labels.Labels) *writev2.TimeSeries {
	a.series = append(a.series, writev2.TimeSeries{LabelsRefs: a.symbols.SymbolizeLabels(ls, nil)})
	return &a.series[len(a.series)-1]
}

// Append implements storage.Appender.
func (a *appender) Append(_ storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	a.add(ls).Samples = []writev2.Sample{{Timestamp: t, Value: v}}
	return 0, nil
}

// AppendHistogram implements storage.Appender.
func (a *appender) AppendHistogram(_ storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	s := a.add(ls)
	if h != nil {
		s.Histograms = []writev2.Histogram{writev2.FromIntHistogram(0, t, h)}
	} else {
		s.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(0, t, fh)}
	}
	return 0, nil
}

// Commit implements storage.Appender. It returns when all is stored, or why not.
func (a *appender) Commit() error {
	if len(a.series) == 0 {
		return nil
	}
	m, user := a.w.r.metrics, string(a.w.id)
	body, err := (&writev2.Request{Symbols: a.symbols.Symbols(), Timeseries: a.series}).Marshal()
	a.series = nil
	if err != nil {
		return errs.New(errs.Internal, "encode what rules recorded: %w", err)
	}
	m.writes.WithLabelValues(user).Inc()
	// What was evaluated is written also when the ruler is told to stop.
	if err = a.w.r.deps.Push(context.WithoutCancel(a.ctx), a.w.id, &remotewrite.Request{Version: remotewrite.V2, Body: body}); err != nil {
		reason := blame(err)
		m.writesFailed.WithLabelValues(user, reason).Inc()
		return blamed(err, reason)
	}
	return nil
}

// Rollback implements storage.Appender.
func (a *appender) Rollback() error {
	a.series = nil
	return nil
}

// SetOptions implements storage.Appender. Samples that come late are stored where the tenant may do
// that: a rule is evaluated at times of its own.
func (*appender) SetOptions(*storage.AppendOptions) {}

// The rest of storage.Appender is not used by rules.

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
	return errs.New(errs.Internal, "rules record samples and histograms alone")
}
