package otlp

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// arrival describes the point being read, whose labels are known, of m.
func (t *Translator) arrival(m *metric, start, at uint64) arrival {
	var hi, lo maphash.Hash
	hi.SetSeed(t.set.Streams.seeds[0])
	lo.SetSeed(t.set.Streams.seeds[1])
	write := func(s string) {
		_, _ = hi.WriteString(s)
		_ = hi.WriteByte(0xff)
		_, _ = lo.WriteString(s)
		_ = lo.WriteByte(0xff)
	}
	write(t.set.Tenant)
	write(m.family)
	write(string(rune(m.data)))
	for i := range t.merged {
		write(t.merged[i].name)
		write(t.merged[i].value)
	}
	return arrival{key: streamKey{hi.Sum64(), lo.Sum64()}, start: start, at: at, epoch: t.parts.epoch,
		alone: t.parts.epoch > 0 && t.set.StartTimes}
}

// fingerprint tells a point that is sent again from another one.
func (s *Streams) fingerprint(numbers ...uint64) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seeds[0])
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}

// number adds v up and returns the sum.
func (s *Streams) number(a arrival, v numberValue) (sum float64, start uint64, show bool, err error) {
	if f := v.float(); f < 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, 0, false, errNotAddable
	}
	a.print = s.fingerprint(a.start, math.Float64bits(v.float()))
	st, leave, add, show, err := s.enter(a)
	if err != nil {
		return 0, 0, false, err
	}
	defer leave()
	if add {
		st.number.add(v)
	}
	return st.number.value(), st.start, show, nil
}

// explicitSum is the sum of explicit histograms with the same bounds.
type explicitSum struct {
	bounds []float64
	counts []uint64
	count  uint64
	sum    float64
	hasSum bool
}

// explicit adds p up and makes it the sum.
func (s *Streams) explicit(a arrival, p *explicitPoint) (show bool, err error) {
	if p.hasSum && (math.IsNaN(p.sum) || math.IsInf(p.sum, 0)) || len(p.counts) > maxPointBuckets || len(p.bounds) > maxPointBuckets {
		return false, errNotAddable
	}
	a.print = s.fingerprint(a.start, p.count, math.Float64bits(p.sum))
	st, leave, add, show, err := s.enter(a)
	if err != nil {
		return false, err
	}
	defer leave()
	h := st.hist
	if h == nil || add && (!slices.Equal(h.bounds, p.bounds) || len(h.counts) != len(p.counts) || h.hasSum != p.hasSum) {
		if h != nil {
			st.restart(a)
		}
		h = &explicitSum{bounds: slices.Clone(p.bounds), counts: make([]uint64, len(p.counts)), hasSum: p.hasSum}
		st.hist = h
		s.resize(st, 8*(cap(h.bounds)+cap(h.counts))+64)
	}
	if add {
		for i, c := range p.counts {
			h.counts[i] += c
		}
		h.count += p.count
		h.sum += p.sum
	}
	p.counts, p.bounds = append(p.counts[:0], h.counts...), append(p.bounds[:0], h.bounds...)
	p.count, p.sum, p.hasSum, p.start = h.count, h.sum, h.hasSum, st.start
	return show, nil
}

// exponentialSum is the sum of exponential histograms of one zero threshold, in the coarsest of their
// scales.
type exponentialSum struct {
	scale            int32
	threshold        float64
	count, zeroCount uint64
	sum              float64
	positive         buckets
	negative         buckets
}

// maxSumBuckets is how far apart the buckets of one sign may lie before they are made coarser; SDKs keep
// 160.
const maxSumBuckets = 320

// exponentialPoint is the point being read: h without buckets, and those.
type exponentialPoint struct {
	h                  *histogram.Histogram
	scale              int32
	positive, negative *buckets
}

// exponential adds p up and makes it the sum.
func (s *Streams) exponential(a arrival, p *exponentialPoint) (start uint64, show bool, err error) {
	if math.IsNaN(p.h.Sum) || math.IsInf(p.h.Sum, 0) || !p.positive.sane(p.scale) || !p.negative.sane(p.scale) {
		return 0, false, errNotAddable
	}
	a.print = s.fingerprint(a.start, p.h.Count, math.Float64bits(p.h.Sum))
	st, leave, add, show, err := s.enter(a)
	if err != nil {
		return 0, false, err
	}
	defer leave()
	x := st.exp
	if x == nil || add && x.threshold != p.h.ZeroThreshold {
		if x != nil {
			st.restart(a)
		}
		x = &exponentialSum{scale: p.scale, threshold: p.h.ZeroThreshold}
		st.exp = x
	}
	if add {
		x.add(p)
		s.resize(st, 8*(cap(x.positive.counts)+cap(x.negative.counts))+128)
	}
	p.h.Count, p.h.ZeroCount, p.h.Sum, p.h.ZeroThreshold, p.scale = x.count, x.zeroCount, x.sum, x.threshold, x.scale
	*p.positive = buckets{x.positive.offset, append(p.positive.counts[:0], x.positive.counts...)}
	*p.negative = buckets{x.negative.offset, append(p.negative.counts[:0], x.negative.counts...)}
	return st.start, show, nil
}

// add adds p in a scale in which the buckets of both are few enough.
func (x *exponentialSum) add(p *exponentialPoint) {
	scale := min(x.scale, p.scale)
	fits := func() bool {
		return span(&x.positive, x.scale-scale, p.positive, p.scale-scale) <= maxSumBuckets &&
			span(&x.negative, x.scale-scale, p.negative, p.scale-scale) <= maxSumBuckets
	}
	for scale > histogram.ExponentialSchemaMin && !fits() {
		scale--
	}
	for _, pair := range [][2]*buckets{{&x.positive, p.positive}, {&x.negative, p.negative}} {
		pair[0].coarsen(x.scale - scale)
		pair[1].coarsen(p.scale - scale)
		pair[0].add(pair[1])
	}
	x.scale = scale
	x.count += p.h.Count
	x.zeroCount += p.h.ZeroCount
	x.sum += p.h.Sum
}

// The buckets of the coarsest scale, -4, that numbers lie in.
const (
	lowestBucket  = -1075/16 - 1
	highestBucket = 1024 / 16
	// maxPointBuckets bounds the buckets of one point that is added up.
	maxPointBuckets = 2048
	// maxSumScale is finer than any SDK counts.
	maxSumScale = 32
)

// sane says whether all buckets of s, of that scale, are few and such as numbers lie in. It leaves out
// the empty ones at both ends.
func (s *buckets) sane(scale int32) bool {
	if scale > maxSumScale || int64(s.offset)+int64(len(s.counts)) > math.MaxInt32 {
		return false
	}
	s.trim()
	if len(s.counts) == 0 {
		return true
	}
	merge := scale - histogram.ExponentialSchemaMin
	return len(s.counts) <= maxPointBuckets && s.offset>>merge >= lowestBucket && (int64(s.offset)+int64(len(s.counts))-1)>>merge <= highestBucket
}

// trim leaves out the empty buckets at both ends.
func (s *buckets) trim() {
	for len(s.counts) > 0 && s.counts[len(s.counts)-1] == 0 {
		s.counts = s.counts[:len(s.counts)-1]
	}
	n := 0
	for n < len(s.counts) && s.counts[n] == 0 {
		n++
	}
	s.offset += int32(n)
	s.counts = append(s.counts[:0], s.counts[n:]...)
}

// span is how many buckets a and b take together if 2^mergeA and 2^mergeB neighbours become one.
func span(a *buckets, mergeA int32, b *buckets, mergeB int32) int64 {
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, x := range []struct {
		*buckets
		merge int32
	}{{a, mergeA}, {b, mergeB}} {
		if len(x.counts) > 0 {
			lo = min(lo, int64(x.offset)>>x.merge)
			hi = max(hi, (int64(x.offset)+int64(len(x.counts))-1)>>x.merge)
		}
	}
	return max(hi-lo+1, 0)
}

// coarsen makes 2^merge neighbours one.
func (s *buckets) coarsen(merge int32) {
	if merge == 0 || len(s.counts) == 0 {
		return
	}
	first := int64(s.offset) >> merge
	n := (int64(s.offset)+int64(len(s.counts))-1)>>merge - first + 1
	for i, c := range s.counts {
		at := (int64(s.offset)+int64(i))>>merge - first
		if int64(i) == at {
			continue
		}
		s.counts[i] = 0
		s.counts[at] += c
	}
	s.offset, s.counts = int32(first), s.counts[:n]
}

// add adds the counts of b, which is of the same scale.
func (s *buckets) add(b *buckets) {
	if len(b.counts) == 0 {
		return
	}
	if len(s.counts) == 0 {
		s.offset = b.offset
	}
	lo, hi := min(s.offset, b.offset), max(int64(s.offset)+int64(len(s.counts)), int64(b.offset)+int64(len(b.counts)))
	if n := int(hi - int64(lo)); lo < s.offset || n > len(s.counts) {
		wider := make([]uint64, n)
		copy(wider[s.offset-lo:], s.counts)
		s.offset, s.counts = lo, wider
	}
	for i, c := range b.counts {
		s.counts[int(b.offset-s.offset)+i] += c
	}
}
