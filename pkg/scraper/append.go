package scraper

import (
	"context"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// sink gives out appenders that push for the workspace of a run.
type sink struct{ r *run }

// AppenderV2 implements storage.AppendableV2.
func (s sink) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &appender{ctx: ctx, r: s.r, external: s.r.external.Load()}
}

// appender collects what one scrape gives and pushes it as one request, so that all of it becomes visible
// at once. It is used by one goroutine.
type appender struct {
	ctx      context.Context // of the scrape that it belongs to
	r        *run
	external *labels.Labels
	held     bool // a place among those that hold samples
	symbols  writev2.SymbolsTable
	series   []writev2.TimeSeries
	samples  int
	down     bool
}

// Append implements storage.AppenderV2. The reference it returns tells series of a target apart.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, _, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, opts storage.AppendV2Options) (storage.SeriesRef, error) {
	if !a.held {
		// The answer of the target has been read; what is made of it is bounded by the places.
		if err := a.r.s.places.Acquire(a.ctx, 1); err != nil {
			return 0, errs.Wrap(errs.Canceled, err)
		}
		a.held = true
		a.symbols = writev2.NewSymbolTable()
	}
	if ref == 0 {
		ref = storage.SeriesRef(ls.Hash() | 1)
	}
	ts := writev2.TimeSeries{LabelsRefs: a.symbols.SymbolizeLabels(a.outer(ls), nil), Metadata: a.metadata(opts.Metadata)}
	switch {
	case fh != nil:
		ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(0, t, fh)}
	case h != nil:
		ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(0, t, h)}
	default:
		ts.Samples = []writev2.Sample{{Timestamp: t, Value: v}}
		a.down = a.down || v == 0 && ls.Get(model.MetricNameLabel) == "up"
	}
	for _, e := range opts.Exemplars {
		at := e.Ts
		if !e.HasTs {
			at = t
		}
		ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: a.symbols.SymbolizeLabels(e.Labels, nil), Value: e.Value, Timestamp: at})
	}
	a.series = append(a.series, ts)
	a.samples++
	return ref, nil
}

// outer adds the labels that all series of the scraper have, where a series has none of the name.
func (a *appender) outer(ls labels.Labels) labels.Labels {
	if a.external == nil || a.external.IsEmpty() {
		return ls
	}
	b := labels.NewBuilder(ls)
	a.external.Range(func(l labels.Label) {
		if !ls.Has(l.Name) {
			b.Set(l.Name, l.Value)
		}
	})
	return b.Labels()
}

func (a *appender) metadata(m metadata.Metadata) writev2.Metadata {
	if m.IsEmpty() {
		return writev2.Metadata{}
	}
	return writev2.Metadata{Type: writev2.FromMetadataType(m.Type), HelpRef: a.symbols.Symbolize(m.Help), UnitRef: a.symbols.Symbolize(m.Unit)}
}

// Commit implements storage.AppenderTransaction. It returns when all is stored, or why not.
func (a *appender) Commit() error {
	defer a.leave()
	if len(a.series) == 0 {
		return nil
	}
	m := a.r.metrics
	m.scrapes.Inc()
	if a.down {
		m.failed.Inc()
	}
	body, err := (&writev2.Request{Symbols: a.symbols.Symbols(), Timeseries: a.series}).Marshal()
	if err != nil {
		return errs.New(errs.Internal, "encode what was scraped: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), pushTimeout)
	defer cancel()
	if err = a.r.s.deps.Push(ctx, a.r.tenant, &remotewrite.Request{Version: remotewrite.V2, Body: body}); err != nil {
		m.refused.Inc()
		return err
	}
	m.samples.Add(float64(a.samples))
	return nil
}

// Rollback implements storage.AppenderTransaction.
func (a *appender) Rollback() error {
	a.leave()
	return nil
}

func (a *appender) leave() {
	a.series = nil
	if a.held {
		a.held = false
		a.r.s.places.Release(1)
	}
}
