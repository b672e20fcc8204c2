// Package work owns what frontends ask of queriers: queries and requests of the read API and their
// answers, as passed within one process, and their conversion to the messages of package querypb.
package work

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// Class says how much work matters; a higher one goes first.
type Class uint8

// The classes.
const (
	AdHoc     Class = iota // whatever else asks
	Dashboard              // somebody looks at it
	Rule                   // alerts depend on it
	Classes                // how many there are
)

// String names the class as metrics and logs do.
func (c Class) String() string {
	switch c {
	case Rule:
		return "rule"
	case Dashboard:
		return "dashboard"
	}
	return "ad-hoc"
}

type classKey struct{}

// WithClass returns ctx for work of class c.
func WithClass(ctx context.Context, c Class) context.Context {
	return context.WithValue(ctx, classKey{}, c)
}

// ClassOf returns the class of work done under ctx.
func ClassOf(ctx context.Context) Class {
	c, _ := ctx.Value(classKey{}).(Class)
	return c
}

// Runner runs work for the tenants of ctx and returns when its answer is whole. Errors have kinds;
// after one the answer must not be used.
type Runner interface {
	Run(ctx context.Context, w *Work) error
}

// Work is one query, or one HTTP request of the read API.
type Work struct {
	Class Class

	Query  *Query
	Result *Result // set when Query was run; its user calls Release

	Request *http.Request // its path is the one without a configured prefix
	Writer  http.ResponseWriter

	// Parts takes the answer as messages; then Result and Writer are not used.
	Parts func(*querypb.Part) error
	// Last takes the one after which the answer is whole, as far as that is known while it is sent; nil: Parts
	// takes it, too.
	Last func(*querypb.Part) error
	// Encoded takes messages that arrive encoded as they are; nil: Parts takes them. They are the
	// caller's again afterwards.
	Encoded func([]byte) error
	// Rest is the part that ends an answer which Encoded takes: it is for who had the work run to send, so that
	// part and end travel together.
	Rest *Relayed

	receiver receiver
	begun    bool
}

// Query is one expression and the times at which it is evaluated, in milliseconds: Start, Start+Step
// and so on to End, or with a Step of 0 Start alone.
type Query struct {
	Text             string
	Start, End, Step int64
	Lookback         time.Duration // 0: the querier's
	PerStepStats     bool
	// Only series whose labels hash (labels.StableHash) modulo ShardCount is ShardIndex; 0: all.
	ShardIndex, ShardCount uint32
	// Packed says that who asked understands packed answers.
	Packed bool
	Reading
}

// Result is the answer to a Query.
type Result struct {
	Value    parser.Value
	Warnings annotations.Annotations // as texts if the answer came from another process
	Samples  stats.QuerySamples
	Series   int64 // that a shard selected
	Fetched  Fetched
	release  func()
}

// Fetched is how many bytes of chunks a query read, of all replicas: those that limits count as fetched.
type Fetched struct {
	Ingesters     int64 `json:"ingesters"`
	StoreGateways int64 `json:"store_gateways"`
}

// Add adds o to f.
func (f *Fetched) Add(o Fetched) {
	f.Ingesters += o.Ingesters
	f.StoreGateways += o.StoreGateways
}

// Total is from wherever.
func (f Fetched) Total() int64 { return f.Ingesters + f.StoreGateways }

// NewResult returns a result that is valid until release is called; nil: for ever.
func NewResult(v parser.Value, ws annotations.Annotations, release func()) *Result {
	return &Result{Value: v, Warnings: ws, release: release}
}

// Release gives back what the result holds. It may be called more than once.
func (r *Result) Release() {
	if r == nil || r.release == nil {
		return
	}
	r.release()
	r.release = nil
}

// Answer hands over the result of a query; it must not be used afterwards by the caller.
func (w *Work) Answer(r *Result) error {
	w.begun = true
	if w.Parts == nil {
		w.Result = r
		return nil
	}
	defer r.Release()
	return encode(r, asker{w.Query.Text, w.Query.Packed}, w.sink())
}

// sink is where messages of w's answer go.
func (w *Work) sink() sink {
	if w.Last == nil {
		return sink{w.Parts, w.Parts}
	}
	return sink{w.Parts, w.Last}
}

// ResponseWriter is where the answer of a request goes, and what ends it.
func (w *Work) ResponseWriter() (rw http.ResponseWriter, end func() error) {
	w.begun = true
	if w.Parts == nil {
		return w.Writer, func() error { return nil }
	}
	p := &partWriter{to: w.sink(), header: http.Header{}}
	return p, p.end
}

// Deliver takes a part of the answer from another process. Errors: Internal if it makes no sense,
// those of who takes it.
func (w *Work) Deliver(p *querypb.Part) error {
	w.begun = true
	switch {
	case w.Parts != nil:
		return w.Parts(p)
	case w.Query != nil:
		return w.receiver.add(p)
	}
	return writePart(w.Writer, p)
}

// DeliverEncoded is Deliver for a part that is still encoded. The memory of it is the caller's again
// afterwards.
func (w *Work) DeliverEncoded(b []byte) error {
	if w.Encoded != nil {
		w.begun = true
		return w.Encoded(b)
	}
	p := new(querypb.Part)
	if err := p.UnmarshalVT(b); err != nil {
		return errs.New(errs.Internal, "read a part of an answer: %w", err)
	}
	return w.Deliver(p)
}

// Delivered says that all parts were. Errors: Internal if some are missing.
func (w *Work) Delivered() error {
	if w.Parts != nil || w.Query == nil {
		return nil
	}
	res, err := w.receiver.result()
	if err != nil {
		return err
	}
	res.Samples.EnablePerStepStats = w.Query.PerStepStats
	res.Samples.StartTimestamp, res.Samples.Interval = w.Query.Start, max(w.Query.Step, 1)
	w.Result = res
	return nil
}

// Again makes w ready to be run once more, by somebody else. An answer that went to a Writer cannot be
// taken back.
func (w *Work) Again() bool {
	if w.begun && (w.Parts != nil || w.Query == nil) {
		return false
	}
	w.Result.Release()
	w.Result, w.receiver, w.begun = nil, receiver{}, false
	return true
}

// ToWire returns w as a message. Errors: BodyTooLarge, Invalid for a body that cannot be read.
func (w *Work) ToWire() (*querypb.Work, error) {
	out := &querypb.Work{Class: uint32(w.Class)}
	if q := w.Query; q != nil {
		out.Query = &querypb.Query{Text: q.Text, Start: q.Start, End: q.End, Step: q.Step, Lookback: q.Lookback.Milliseconds(),
			PerStepStats: q.PerStepStats, ShardIndex: q.ShardIndex, ShardCount: q.ShardCount, Only: q.Only, Latest: q.Latest, Partial: q.Partial,
			Packed: q.Packed || w.Parts == nil} // what is read here is understood here
		return out, nil
	}
	var err error
	out.Http, err = requestToWire(w.Request)
	return out, err
}

// FromWire returns the work of a message; the answer goes to parts. Errors: Invalid.
func FromWire(ctx context.Context, p *querypb.Work, parts func(*querypb.Part) error) (*Work, error) {
	w := &Work{Class: min(Class(min(p.Class, uint32(Rule))), Rule), Parts: parts}
	switch {
	case p.Query != nil:
		q := p.Query
		w.Query = &Query{Text: q.Text, Start: q.Start, End: q.End, Step: q.Step, Lookback: time.Duration(q.Lookback) * time.Millisecond,
			PerStepStats: q.PerStepStats, ShardIndex: q.ShardIndex, ShardCount: q.ShardCount, Packed: q.Packed, Reading: Reading{Only: q.Only, Latest: q.Latest, Partial: q.Partial}}
		return w, nil
	case p.Http != nil:
		var err error
		w.Request, err = requestFromWire(ctx, p.Http)
		return w, err
	}
	return nil, errs.New(errs.Invalid, "work is neither a query nor a request")
}
