package otlp

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	streamShards = 64
	// streamBytes is about what a stream takes beside its buckets.
	streamBytes = 256
	// sweepPeriod is how often idle streams are looked for.
	sweepPeriod = time.Minute
)

// Streams adds up points of delta temporality, so that series are cumulative as Prometheus knows them. It
// is right only where all points of a series pass: of several processes, Place must name one.
//
// A sender that got no answer sends a point again, so a point that was counted is not counted twice. What
// is in memory alone is lost with the process, and what is idle is forgotten: then a series begins at
// zero again, which queries take for the restart of a counter.
type Streams struct {
	o     StreamsOptions
	seeds [2]maphash.Seed

	bytes, count atomic.Int64
	swept        atomic.Int64 // unix nanoseconds
	shards       [streamShards]streamShard
}

type streamShard struct {
	mu    sync.Mutex // guards byKey and the streams in it
	byKey map[streamKey]*stream
}

// streamKey names a series. It has 128 bits and secret seeds, so that nobody can make two series one.
type streamKey struct{ hi, lo uint64 }

// stream is a series that is being added up.
type stream struct {
	start uint64 // when counting began, nanoseconds like all times here
	last  uint64 // the end of the last interval counted
	// A point that comes late is known by the gap it left; before all others it was counted already.
	gapFrom, gapTo uint64
	print          uint64 // of the last point
	used           int64  // unix nanoseconds
	epoch          int64  // of its points; with a higher one it begins anew
	first          bool   // it has one point, which somebody else may have counted
	size           int64

	number numberSum
	hist   *explicitSum
	exp    *exponentialSum
}

// StreamsOptions are the bounds of a Streams.
type StreamsOptions struct {
	MaxBytes int64         // about; above it no further series is taken
	Idle     time.Duration // after which a series is forgotten
	Now      func() time.Time
	Take     func(bytes int64) // is told what is taken, below zero what is given back; nil: nobody
}

// NewStreams returns an empty Streams.
func NewStreams(o StreamsOptions) *Streams {
	if o.Take == nil {
		o.Take = func(int64) {}
	}
	s := &Streams{o: o, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range s.shards {
		s.shards[i].byKey = map[streamKey]*stream{}
	}
	s.swept.Store(o.Now().UnixNano())
	return s
}

// Len is the number of series being added up.
func (s *Streams) Len() int { return int(s.count.Load()) }

// Bytes is about what they take.
func (s *Streams) Bytes() int64 { return s.bytes.Load() }

// Sweep forgets idle streams, if it is time to.
func (s *Streams) Sweep() {
	now := s.o.Now().UnixNano()
	last := s.swept.Load()
	if now-last < int64(sweepPeriod) || !s.swept.CompareAndSwap(last, now) {
		return
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for key, st := range sh.byKey {
			if now-st.used >= int64(s.o.Idle) {
				delete(sh.byKey, key)
				s.take(-st.size)
				s.count.Add(-1)
			}
		}
		sh.mu.Unlock()
	}
}

// The reasons for which a delta point is refused.
var (
	errStreamsFull = errors.New("this process adds up as many series of delta temporality as it may; see -distributor.max-otlp-delta-bytes")
	errNoTime      = errors.New("it has delta temporality and no time")
	errNotAddable  = errors.New("it has delta temporality and a value that cannot be added up")
)

// arrival is what a delta point says about its interval.
type arrival struct {
	key       streamKey
	start, at uint64
	epoch     int64
	// alone says that the first point is not part of the sums after it. When series move, it may be one that
	// its former process stored but could not answer for. Then the storage refuses it, as there is another
	// sample of that time, and nothing is counted twice.
	alone bool
	print uint64
}

// enter finds the stream of a and locks it; leave must follow if there is no error. add says whether the
// point is to be added, show whether the sum becomes a sample.
func (s *Streams) enter(a arrival) (st *stream, leave func(), add, show bool, err error) {
	if a.at == 0 {
		return nil, nil, false, false, errNoTime
	}
	sh := &s.shards[a.key.lo%streamShards]
	sh.mu.Lock()
	st = sh.byKey[a.key]
	if st == nil {
		if s.bytes.Load()+streamBytes > s.o.MaxBytes {
			sh.mu.Unlock()
			return nil, nil, false, false, errStreamsFull
		}
		st = &stream{start: a.begin(), size: streamBytes, epoch: a.epoch, first: a.alone}
		sh.byKey[a.key] = st
		s.take(st.size)
		s.count.Add(1)
	}
	st.used = s.o.Now().UnixNano()
	switch {
	case a.at <= st.last:
	case a.epoch > st.epoch:
		s.resize(st, 0)
		*st = stream{start: a.begin(), size: st.size, epoch: a.epoch, first: a.alone, used: st.used}
	case st.first && st.last > 0:
		s.resize(st, 0)
		st.first, st.start, st.number, st.hist, st.exp = false, a.begin(), numberSum{}, nil, nil
	}
	add, show = st.judge(a)
	return st, sh.mu.Unlock, add, show, nil
}

// begin is when a sum starts that a is the first of. The interval before ended when this one began, perhaps
// with a sample of another sum, and the zero that marks the start is to come after it.
func (a *arrival) begin() uint64 {
	const tick = uint64(time.Millisecond)
	if a.start == 0 || a.start+tick >= a.at {
		return a.at
	}
	return a.start + tick
}

// judge places a among the intervals counted so far.
func (st *stream) judge(a arrival) (add, show bool) {
	switch {
	case a.epoch > st.epoch: // it did not begin anew with an older one, which somebody else may have counted
		return false, a.at == st.last && a.print == st.print
	case a.at > st.last:
		if st.last > 0 && a.start > st.last {
			st.gapFrom, st.gapTo = st.last, a.start
		}
		st.last, st.print = a.at, a.print
		return true, true
	case a.at == st.last && a.print == st.print:
		return false, true // sent again, as the sender does not know that it was counted
	case a.at == st.last:
		return true, true // of another sender
	case a.start > 0 && a.start >= st.gapFrom && a.at <= st.gapTo:
		// Late. Later sums were shown without it, so it is first seen in the next one.
		st.gapFrom = a.at
		return true, false
	}
	return false, false // late, and counted already
}

// resize accounts for n bytes of buckets in st.
func (s *Streams) resize(st *stream, n int) {
	size := int64(streamBytes + n)
	s.take(size - st.size)
	st.size = size
}

func (s *Streams) take(n int64) {
	s.bytes.Add(n)
	s.o.Take(n)
}

// restart makes a stream whose points changed their shape begin anew with the interval of a.
func (st *stream) restart(a arrival) {
	st.start, st.gapFrom, st.gapTo = a.begin(), 0, 0
}

// numberSum is the sum of numbers, exact for whole ones.
type numberSum struct {
	whole int64
	rest  float64
}

func (n *numberSum) add(v numberValue) {
	if v.isInt {
		if sum := n.whole + v.i; sum >= n.whole == (v.i >= 0) {
			n.whole = sum
			return
		}
		n.rest += float64(n.whole) // it left the range
		n.whole = v.i
		return
	}
	n.rest += v.f
}

func (n *numberSum) value() float64 { return float64(n.whole) + n.rest }

// numberValue is the value of a number point.
type numberValue struct {
	isInt bool
	i     int64
	f     float64
}

func (v numberValue) float() float64 {
	if v.isInt {
		return float64(v.i)
	}
	return v.f
}
