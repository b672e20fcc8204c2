package prom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/imports"
)

const (
	// mostRowsPerLine bounds the samples of one line, so that who reads lines needs little memory whatever
	// a series has.
	mostRowsPerLine = 10_000
	// mostHistogramsPerLine bounds those, each of which is as long as many samples.
	mostHistogramsPerLine = 100
	// typeLines and typeCSV are the content types of exports.
	typeLines = "application/stream+json; charset=utf-8"
	typeCSV   = "text/csv; charset=utf-8"
)

// export is the parameters of all forms of exports.
type export struct {
	start, end int64 // milliseconds
	sets       [][]*labels.Matcher
	after      labels.Labels // series up to this one are left out
	omit, fail bool          // native histograms are left out, or are an error
}

// exportParams reads them. Errors: Invalid, and those of the limit on the length of queries.
func (a *API) exportParams(w http.ResponseWriter, r *http.Request) (export, error) {
	var e export
	if err := parseForm(w, r); err != nil {
		return e, err
	}
	start, end, err := rangeParams(r)
	if err != nil {
		return e, err
	}
	if end.Before(start) {
		return e, badParam("end", errors.New("end timestamp must not be before start time"))
	}
	e.start, e.end = timestamp.FromTime(start), timestamp.FromTime(end)
	if err := a.checkSpan(r.Context(), end.Sub(start)); err != nil {
		return e, err
	}
	if e.sets, err = a.matcherSets(r); err != nil {
		return e, paramError("match[]", err)
	}
	if len(e.sets) == 0 {
		return e, errs.New(errs.Invalid, "no match[] parameter provided")
	}
	for _, ms := range e.sets {
		if err := a.checkSelector(r.Context(), ms); err != nil {
			return e, err
		}
	}
	if text := r.Form.Get("after"); text != "" {
		var metric map[string]string
		if err := json.Unmarshal([]byte(text), &metric); err != nil {
			return e, badParam("after", errors.New("it must be the labels of a series as a JSON object"))
		}
		e.after = labels.FromMap(metric)
	}
	switch text := r.Form.Get("histograms"); text {
	case "":
	case "fail", "omit":
		e.fail, e.omit = text == "fail", text == "omit"
	default:
		return e, badParam("histograms", errors.New("it must be fail or omit"))
	}
	return e, nil
}

// slot waits for one of the places of those who read raw samples; the caller gives it back.
func (a *API) slot(ctx context.Context) (release func(), err error) {
	a.metrics.remoteReads.Inc()
	select {
	case a.reads <- struct{}{}:
		return func() { <-a.reads; a.metrics.remoteReads.Dec() }, nil
	case <-ctx.Done():
		a.metrics.remoteReads.Dec()
		return nil, fmt.Errorf("wait for a remote read slot: %w", context.Cause(ctx))
	}
}

// selected are the series of an export, sorted, each once.
func (e *export) selected(ctx context.Context, q storage.Querier) storage.SeriesSet {
	hints := &storage.SelectHints{Start: e.start, End: e.end}
	if len(e.sets) == 1 {
		return q.Select(ctx, true, hints, e.sets[0]...)
	}
	var sets []storage.SeriesSet
	for _, ms := range e.sets {
		sets = append(sets, q.Select(ctx, true, hints, ms...))
	}
	return storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
}

// form is how an export writes samples.
type form interface {
	// begin writes what stands before the samples of a series.
	begin(out *answer, ls labels.Labels)
	sample(out *answer, t int64, v float64)
	// histogram writes a native histogram, one of h and fh. It says whether the form has a place for it.
	histogram(out *answer, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) bool
	// end writes what stands behind them.
	end(out *answer)
	// fail writes what became of the export after it began.
	fail(out *answer, err error)
}

// Export streams samples as JSON objects, one on each line, in the form that /api/v1/import reads. A
// series with many samples has several lines.
func (a *API) Export(w http.ResponseWriter, r *http.Request) error {
	e, err := a.exportParams(w, r)
	if err != nil {
		return err
	}
	f := &linesForm{most: mostRowsPerLine}
	if text := r.Form.Get("max_rows_per_line"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostRowsPerLine {
			return badParam("max_rows_per_line", fmt.Errorf("it must be a number from 1 to %d", mostRowsPerLine))
		}
		f.most = n
	}
	return a.exportAs(w, r, e, typeLines, f)
}

// ExportCSV streams samples as lines of the columns that the parameter format names.
func (a *API) ExportCSV(w http.ResponseWriter, r *http.Request) error {
	e, err := a.exportParams(w, r)
	if err != nil {
		return err
	}
	f, err := newCSVForm(r.Form.Get("format"))
	if err != nil {
		return err
	}
	return a.exportAs(w, r, e, typeCSV, f)
}

// exportAs streams the series of e. What fails after the answer has begun is written at its end, and the
// connection is cut: the answer must not look as if it were whole.
func (a *API) exportAs(w http.ResponseWriter, r *http.Request, e export, kind string, f form) error {
	ctx, cancel := a.bounded(r)
	defer cancel()
	release, err := a.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	q, err := a.b.Storage.Querier(e.start, e.end)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	ctx, turn, end := a.b.Turns.Begin(ctx)
	defer end()
	return a.writers.stream(w, r, kind, func(out *answer) error {
		out.turn = turn
		err := e.write(e.selected(ctx, q), f, out)
		if err != nil && out.started && out.err == nil {
			f.fail(out, err)
			out.flush()
		}
		return err
	})
}

func (e *export) write(set storage.SeriesSet, f form, out *answer) error {
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		ls := s.Labels()
		if !e.after.IsEmpty() && labels.Compare(ls, e.after) <= 0 {
			continue
		}
		it = s.Iterator(it)
		if err := e.series(ls, it, f, out); err != nil {
			return err
		}
	}
	return set.Err()
}

// series writes one series, nothing if it has no samples.
func (e *export) series(ls labels.Labels, it chunkenc.Iterator, f form, out *answer) error {
	began := false
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if kind != chunkenc.ValFloat && e.omit {
			continue
		}
		if !began {
			began = true
			f.begin(out, ls)
		}
		ok := true
		switch {
		case kind == chunkenc.ValFloat:
			t, v := it.At()
			f.sample(out, t, v)
		case e.fail:
			ok = false
		case kind == chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			ok = f.histogram(out, t, h, nil)
		default:
			t, fh := it.AtFloatHistogram(nil)
			ok = f.histogram(out, t, nil, fh)
		}
		if !ok {
			return errs.New(errs.Unprocessable, "series %s has native histograms, for which there is no place here: export and export/native have one, and histograms=omit leaves them out", ls)
		}
		if out.spill(); out.err != nil {
			return errs.New(errs.Canceled, "send the export: %w", out.err)
		}
	}
	if began {
		f.end(out)
	}
	return it.Err()
}

// linesForm writes {"metric":{...},"values":[...],"timestamps":[...]}, or "histograms" in place of "values".
type linesForm struct {
	most   int // samples of a line
	ls     labels.Labels
	native bool // the line is of histograms
	times  []int64
}

func (l *linesForm) begin(_ *answer, ls labels.Labels) { l.ls, l.times = ls, l.times[:0] }

// next begins a line, or goes on with it.
func (l *linesForm) next(out *answer, t int64, native bool, most int) {
	if len(l.times) > 0 && (l.native != native || len(l.times) >= most) {
		l.end(out)
	}
	if len(l.times) > 0 {
		out.buf = append(out.buf, ',')
	} else {
		l.native = native
		out.buf = appendLabels(append(out.buf, `{"metric":`...), l.ls)
		if native {
			out.buf = append(out.buf, `,"histograms":[`...)
		} else {
			out.buf = append(out.buf, `,"values":[`...)
		}
	}
	l.times = append(l.times, t)
}

func (l *linesForm) sample(out *answer, t int64, v float64) {
	l.next(out, t, false, l.most)
	out.buf = imports.AppendFloat(out.buf, v)
}

func (l *linesForm) histogram(out *answer, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) bool {
	l.next(out, t, true, min(l.most, mostHistogramsPerLine))
	out.buf = imports.AppendHistogram(out.buf, h, fh)
	return true
}

func (l *linesForm) end(out *answer) {
	out.buf = append(out.buf, `],"timestamps":[`...)
	for i, t := range l.times {
		if i > 0 {
			out.buf = append(out.buf, ',')
		}
		out.buf = strconv.AppendInt(out.buf, t, 10)
	}
	out.buf = append(out.buf, "]}\n"...)
	l.times = l.times[:0]
}

func (l *linesForm) fail(out *answer, err error) {
	out.buf = append(appendString(append(out.buf, "\n{\"error\":"...), err.Error()), "}\n"...)
}

// ExportNative streams the chunks of series as they are stored, in the frames of remote read: native
// histograms, too.
func (a *API) ExportNative(w http.ResponseWriter, r *http.Request) error {
	e, err := a.exportParams(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	release, err := a.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	q, err := a.b.Storage.ChunkQuerier(e.start, e.end)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	out := newFrameWriter(w)
	if err := e.writeChunks(e.selectedChunks(ctx, q), out); err != nil {
		if out.sent {
			out.cut()
		}
		return err
	}
	if !out.sent {
		out.begin()
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// selectedChunks are the series of an export, sorted, each once.
func (e *export) selectedChunks(ctx context.Context, q storage.ChunkQuerier) storage.ChunkSeriesSet {
	hints := &storage.SelectHints{Start: e.start, End: e.end}
	if len(e.sets) == 1 {
		return q.Select(ctx, true, hints, e.sets[0]...)
	}
	var sets []storage.ChunkSeriesSet
	for _, ms := range e.sets {
		sets = append(sets, q.Select(ctx, true, hints, ms...))
	}
	return storage.NewMergeChunkSeriesSet(sets, 0, storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge))
}

func (e *export) writeChunks(set storage.ChunkSeriesSet, out *frameWriter) error {
	var it chunks.Iterator
	var lbls []prompb.Label
	for set.Next() {
		s := set.At()
		ls := s.Labels()
		if !e.after.IsEmpty() && labels.Compare(ls, e.after) <= 0 {
			continue
		}
		it = s.Iterator(it)
		lbls = prompb.FromLabels(ls, lbls)
		if err := out.series(0, lbls, it); err != nil {
			return err
		}
	}
	return set.Err()
}
