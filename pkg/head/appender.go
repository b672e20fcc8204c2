package head

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// ErrUnknownRef says that a Ref names no series (any more).
var ErrUnknownRef = errors.New("unknown series reference")

// farTime bounds the times of samples, in milliseconds either way. Near the ends of the integers the
// TSDB's sums of times and ranges wrap around: one such sample would make a head refuse all others,
// or never be due for a cut.
const farTime = int64(1) << 53

// Appender is one batch: all of it becomes visible to queries at Commit, at once. It must end
// with Commit or Rollback, and is not safe for concurrent use.
type Appender struct {
	h    *Head
	min  int64 // earliest time taken
	app  storage.AppenderV2
	exs  storage.Appender // made when the first exemplar comes
	last lastSample

	refs  []Ref // of the samples
	times []int64
	late  bool  // one of the samples comes late
	lates int64 // samples known to come late when they were appended
}

// lastSample is what a batch took last.
type lastSample struct {
	ref   Ref
	t     int64
	v     float64
	hist  *histogram.Histogram
	fhist *histogram.FloatHistogram
}

// fault compares the next sample of the same series with the last one. The TSDB compares a sample
// with what is committed, and what contradicts its own batch it drops without a word at Commit.
func (l *lastSample) fault(t int64, v float64, hist *histogram.Histogram, fhist *histogram.FloatHistogram, late bool) error {
	switch {
	case t < l.t && !late:
		return storage.ErrOutOfOrderSample
	case t != l.t:
		return nil
	}
	same := math.Float64bits(v) == math.Float64bits(l.v) && (hist == nil) == (l.hist == nil) && (fhist == nil) == (l.fhist == nil)
	if !same || hist != nil && !hist.Equals(l.hist) || fhist != nil && !fhist.Equals(l.fhist) {
		return storage.ErrDuplicateSampleForTimestamp
	}
	return nil
}

// Appender starts a batch. While everything is being cut it takes no sample as old as what is cut.
func (h *Head) Appender() *Appender {
	h.flush.RLock()
	return h.begin(new(Appender))
}

// TryAppender starts a batch of samples no older than oldest. It does not wait: nil says that such
// samples are being cut, which takes as long as the disk and the slowest query. The batch takes
// over the memory of again, one that has ended, perhaps of another head; nil: it takes its own.
func (h *Head) TryAppender(oldest int64, again *Appender) *Appender {
	if !h.flush.TryRLock() {
		return nil
	}
	if h.cutting.Load() > oldest {
		h.flush.RUnlock()
		return nil
	}
	if again == nil {
		again = new(Appender)
	}
	return h.begin(again)
}

// Cutting says whether everything is being cut, so that older samples have to wait.
func (h *Head) Cutting() bool { return h.cutting.Load() != noCut }

// begin needs h.flush.
func (h *Head) begin(a *Appender) *Appender {
	*a = Appender{h: h, min: max(-farTime, h.cutting.Load()), app: h.db.Head().AppenderV2(context.Background()),
		refs: a.refs[:0], times: a.times[:0]}
	return a
}

// Append adds one float sample, t in milliseconds, and returns the reference of its series. With
// ref 0 the series is found or created by ls, else ls is not looked at. A reference other than ref
// says that the series left memory at this very moment and was made again. Errors: ErrUnknownRef,
// what PreCreate returned, and storage.ErrOutOfOrderSample, ErrTooOldSample, ErrOutOfBounds,
// ErrDuplicateSampleForTimestamp; after any of them the batch can go on.
func (a *Appender) Append(ref Ref, ls labels.Labels, t int64, v float64) (Ref, error) {
	return a.append(ref, ls, t, v, nil, nil)
}

// AppendHistogram is Append for a native histogram; exactly one of hist and fhist is set.
func (a *Appender) AppendHistogram(ref Ref, ls labels.Labels, t int64, hist *histogram.Histogram, fhist *histogram.FloatHistogram) (Ref, error) {
	return a.append(ref, ls, t, 0, hist, fhist)
}

// AppendStart adds a zero that marks the start of a series, a float or, like the one of them that is
// set, a histogram. Only if the series has no samples as new, in memory or in this batch, is it taken:
// what is known of it must not change. Errors: as of Append.
func (a *Appender) AppendStart(ref Ref, ls labels.Labels, t int64, hist *histogram.Histogram, fhist *histogram.FloatHistogram) (Ref, error) {
	if t < a.min || t > farTime {
		return 0, storage.ErrOutOfBounds
	}
	if ref != 0 {
		if ref == a.last.ref && t <= a.last.t {
			return 0, storage.ErrOutOfOrderSample
		}
		ls = labels.EmptyLabels()
	}
	if ref == 0 {
		a.h.creating.Lock()
		defer a.h.creating.Unlock()
	}
	got, err := a.app.Append(storage.SeriesRef(ref), ls, 0, t, 0, hist, fhist, storage.AOptions{RejectOutOfOrder: true})
	if err != nil {
		return 0, err
	}
	a.last = lastSample{Ref(got), t, 0, hist, fhist}
	a.refs, a.times = append(a.refs, Ref(got)), append(a.times, t)
	return Ref(got), nil
}

func (a *Appender) append(ref Ref, ls labels.Labels, t int64, v float64, hist *histogram.Histogram, fhist *histogram.FloatHistogram) (Ref, error) {
	if t < a.min || t > farTime {
		return 0, storage.ErrOutOfBounds
	}
	if ref != 0 {
		if ref == a.last.ref && t <= a.last.t {
			if err := a.last.fault(t, v, hist, fhist, a.h.late.Load()); err != nil {
				return 0, err
			}
		}
		ls = labels.EmptyLabels()
	} else {
		a.h.creating.Lock()
		defer a.h.creating.Unlock()
	}
	got, err := a.app.Append(storage.SeriesRef(ref), ls, 0, t, v, hist, fhist, storage.AOptions{RejectOutOfOrder: true})
	late := err != nil && errors.Is(err, storage.ErrOutOfOrderSample) && a.h.late.Load()
	if late {
		got, err = a.app.Append(storage.SeriesRef(ref), ls, 0, t, v, hist, fhist, storage.AOptions{})
	}
	if err != nil && ref != 0 && errors.Is(err, tsdb.ErrInvalidSample) {
		// The series is gone, and without labels the TSDB cannot create it.
		return 0, ErrUnknownRef
	}
	if err == nil {
		a.last = lastSample{Ref(got), t, v, hist, fhist}
		a.refs, a.times = append(a.refs, Ref(got)), append(a.times, t)
		if late {
			a.late = true
			a.lates++
		}
	}
	return Ref(got), err
}

// Find returns the reference of the series ls, 0 if it is not in memory.
func (a *Appender) Find(ls labels.Labels) Ref {
	g, ok := a.app.(storage.GetRef)
	if !ok {
		return 0
	}
	ref, _ := g.GetRef(ls, ls.Hash())
	return Ref(ref)
}

// AppendExemplar adds an exemplar to the series ref, which has a sample already.
func (a *Appender) AppendExemplar(ref Ref, e exemplar.Exemplar) error {
	if a.exs == nil {
		a.exs = a.h.db.Head().Appender(context.Background())
	}
	if err := a.h.exemplars.makeFor(a.h); err != nil {
		return err
	}
	_, err := a.exs.AppendExemplar(storage.SeriesRef(ref), labels.EmptyLabels(), e)
	return err
}

// Commit makes the batch visible, all of it at once. Late samples wait for the queries that look
// up series at this moment.
func (a *Appender) Commit() error {
	defer a.h.flush.RUnlock()
	err := a.h.commit(a)
	if a.lates > 0 && err == nil {
		a.h.lateSamples.Add(a.lates)
	}
	return err
}

// flush hands the batch to the TSDB.
func (a *Appender) flush() error {
	err := a.app.Commit()
	if a.exs != nil {
		if err != nil {
			return errors.Join(err, a.exs.Rollback())
		}
		err = a.exs.Commit()
	}
	return err
}

// Rollback forgets the batch. Series it created stay until the next cut.
func (a *Appender) Rollback() error {
	defer a.h.flush.RUnlock()
	err := a.app.Rollback()
	if a.exs != nil {
		err = errors.Join(err, a.exs.Rollback())
	}
	return err
}
