// Package frame owns the unit that distributors send to ingesters: what one push request holds for
// one ingester, in columns, with series named by references that were bound to labels once. Within
// one process a Frame is passed by pointer; between processes it is encoded (FORMAT.md).
package frame

import (
	"context"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Ref names a series on one stream and for one tenant. The sender chooses it: the low 32 bits are
// a dense index, the next 16 a generation that grows when the index is used for another series,
// so that a reference to what an index named before is recognised as unknown.
type Ref uint64

// MakeRef joins index and generation.
func MakeRef(index uint32, gen uint16) Ref { return Ref(index) | Ref(gen)<<32 }

// Index is the dense part of r.
func (r Ref) Index() uint32 { return uint32(r) }

// Gen is the generation of r's index.
func (r Ref) Gen() uint16 { return uint16(r >> 32) }

// Source says who wrote.
type Source uint8

// The sources.
const (
	API  Source = iota // a client
	Rule               // a recording rule
)

// Frame is what one push request brings to one ingester. All of it becomes visible to queries at
// once. The columns Refs, Times and Values have one entry per float sample; StartTimes is nil or
// has as many (0: unknown). All times are in milliseconds since the epoch.
//
// Every Ref used must be bound on the stream already or by Defs of this frame. A frame is
// read-only once it is handed over.
type Frame struct {
	Tenant string
	Source Source

	Defs []Def

	Refs       []Ref
	Times      []int64
	Values     []float64
	StartTimes []int64

	Histograms []Histogram
	Exemplars  []Exemplar
	Metadata   []Metadata
}

// Def binds Ref to Labels on the stream that carries it. Labels are sorted, unique and valid, and
// own their memory. Token is the series' place on the ring.
type Def struct {
	Ref    Ref
	Token  uint32
	Labels labels.Labels
}

// Histogram is one native histogram sample; exactly one of H and FH is set.
type Histogram struct {
	Ref       Ref
	Time      int64
	StartTime int64 // 0: unknown
	H         *histogram.Histogram
	FH        *histogram.FloatHistogram
}

// Exemplar is one exemplar of the series Ref.
type Exemplar struct {
	Ref    Ref
	Time   int64
	Value  float64
	Labels labels.Labels
}

// Metadata describes the metric family Name. Type is the Prometheus text form ("counter").
type Metadata struct {
	Name, Type, Help, Unit string
}

// Reset empties f and keeps its memory.
func (f *Frame) Reset() {
	clear(f.Defs)
	clear(f.Histograms)
	clear(f.Exemplars)
	clear(f.Metadata)
	*f = Frame{
		Defs: f.Defs[:0], Refs: f.Refs[:0], Times: f.Times[:0], Values: f.Values[:0], StartTimes: f.StartTimes[:0],
		Histograms: f.Histograms[:0], Exemplars: f.Exemplars[:0], Metadata: f.Metadata[:0],
	}
}

// Samples is the number of float and histogram samples in f.
func (f *Frame) Samples() int { return len(f.Refs) + len(f.Histograms) }

// Outcome says what became of a frame.
type Outcome uint8

// The outcomes.
const (
	// Stored: the frame is on disk, except what Result.Rejected counts.
	Stored Outcome = iota
	// UnknownRefs: nothing was stored, because Result.Unknown are not bound on this stream. Send
	// the frame again with definitions for them.
	UnknownRefs
	// Failed: nothing was stored; Result.Kind says whether another try can help.
	Failed
)

// Result answers one frame.
type Result struct {
	Outcome Outcome
	// Unknown lists references that are not bound: with UnknownRefs those the frame used, with
	// Stored those it defined although nothing of their series was stored.
	Unknown []Ref

	// Kind and Message are the first error met: with Stored, of the samples that were rejected,
	// with Failed, of the frame. Message is empty when there was none.
	Kind    errs.Kind
	Message string
	// Rejected counts samples (float and histogram) that were not stored although the frame was.
	Rejected int
}

// Err returns the error r reports, with its kind, nil if none.
func (r *Result) Err() error {
	if r.Message == "" && r.Outcome != Failed {
		return nil
	}
	return errs.New(r.Kind, "%s", r.Message)
}

// FailedWith is the result of a frame of which nothing was stored because of err.
func FailedWith(err error) Result {
	return Result{Outcome: Failed, Kind: errs.KindOf(err), Message: err.Error()}
}

// Replica takes frames for one ingester over one stream of bindings.
type Replica interface {
	// Push hands f over and returns without waiting for its outcome. done is called exactly once, from any goroutine, within the push
	// timeout; after that f is the caller's again.
	Push(f *Frame, done func(Result))

	// Incarnation names the stream's set of bindings; it changes, and is never used again in
	// this process, when the other side may have forgotten them. 0 is never an incarnation.
	Incarnation() uint32
}

// Stream is the receiving end of one Replica: the bindings of references to series live as long
// as it does. Push may be called from several goroutines at once.
type Stream interface {
	// Push stores f, which is on disk when it returns Stored. f is the caller's again afterwards.
	Push(ctx context.Context, f *Frame) Result
	// Close forgets the bindings.
	Close()
}

// Server opens streams.
type Server interface{ OpenStream() Stream }
