// Package imports converts the text formats of scripts and exports to remote write 2.0, so that they
// take the one write path there is: the Prometheus exposition format, JSON lines with a series and
// its samples each, as VictoriaMetrics exports them, and the chunks of native exports. It also owns
// the form of native histograms in JSON lines.
//
// Clarity comes before speed here: imports are made by people and for moving data. A request is
// accepted whole or not at all, so that whoever imports a file knows whether it is right.
package imports

import (
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// Result is what a request was made into.
type Result struct {
	// Body is a remote write 2.0 body in memory of the Room, the caller's also if there is an error.
	Body []byte
	// Samples is how many samples Body has.
	Samples int
}

// Options says how a request is read.
type Options struct {
	// Time is of samples that have none.
	Time time.Time
	// Extra are labels that every series gets; they win over its own. They are sorted by name.
	Extra labels.Labels
}

// writer writes series with the extra labels.
type writer struct {
	enc  remotewrite.Encoder
	o    Options
	refs []uint32
}

func (w *writer) begin(o Options, buf []byte, room remotewrite.Room) {
	w.o = o
	w.enc.Begin(buf, room)
}

// end returns what was written. err is of the reading.
func (w *writer) end(err error) (Result, error) {
	res := Result{Samples: w.enc.Samples()}
	body, encErr := w.enc.End()
	res.Body = body
	if err == nil {
		err = encErr
	}
	return res, err
}

// series begins a series with the labels ls, which are sorted by name, and the extra ones.
func (w *writer) series(ls labels.Labels) error {
	if w.o.Extra.Len() > 0 {
		b := labels.NewBuilder(ls)
		w.o.Extra.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		ls = b.Labels()
	}
	if !ls.Has(model.MetricNameLabel) {
		return errs.New(errs.Invalid, "a series has no name: %.200s", ls)
	}
	w.refs = w.refs[:0]
	ls.Range(func(l labels.Label) { w.refs = append(w.refs, w.enc.Symbol(l.Name), w.enc.Symbol(l.Value)) })
	w.enc.Series(w.refs)
	return nil
}
