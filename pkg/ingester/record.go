package ingester

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/encoding"
	tsdbrecord "github.com/prometheus/prometheus/tsdb/record"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// recordPush is the first byte of the one kind of record the log holds: what one push stored for
// one tenant. FORMAT.md draws it.
const recordPush = 1

// errDamagedRecord says that a record passed the log's checksum and still cannot be read.
var errDamagedRecord = errors.New("damaged record")

// series is the definition of a series as logged.
type series struct {
	ref    head.Ref
	labels labels.Labels
}

// sample is one float sample as logged.
type sample struct {
	ref head.Ref
	t   int64
	v   float64
}

// histogramSample is one native histogram as logged; exactly one of h and fh is set.
type histogramSample struct {
	ref head.Ref
	t   int64
	h   *histogram.Histogram
	fh  *histogram.FloatHistogram
}

// exemplarSample is one exemplar as logged.
type exemplarSample struct {
	ref head.Ref
	e   exemplar.Exemplar
}

// record is what one push stored for one tenant. The references belong to session: another head,
// also of the same tenant, has other sessions. The series a record uses are defined in it or in
// one before it.
type record struct {
	tenant     string
	session    uint64
	series     []series
	samples    []sample
	histograms []histogramSample
	exemplars  []exemplarSample
}

func (r *record) reset() {
	clear(r.series)
	clear(r.histograms)
	clear(r.exemplars)
	r.series, r.samples, r.histograms, r.exemplars = r.series[:0], r.samples[:0], r.histograms[:0], r.exemplars[:0]
}

// empty says whether there is nothing to log.
func (r *record) empty() bool {
	return len(r.series) == 0 && len(r.samples) == 0 && len(r.histograms) == 0 && len(r.exemplars) == 0
}

// recordBytes is where a record is split, so that what one push stores always fits the log.
const recordBytes = 8 << 20

// halves splits r in two that mean the same in this order: definitions go first. False: r has a
// single item.
func (r *record) halves() (first, rest record, ok bool) {
	first, rest = record{tenant: r.tenant, session: r.session}, record{tenant: r.tenant, session: r.session}
	if len(r.series) > 0 && len(r.samples)+len(r.histograms)+len(r.exemplars) > 0 {
		first.series = r.series
		rest.samples, rest.histograms, rest.exemplars = r.samples, r.histograms, r.exemplars
		return first, rest, true
	}
	first.series, rest.series = inHalf(r.series)
	first.samples, rest.samples = inHalf(r.samples)
	first.histograms, rest.histograms = inHalf(r.histograms)
	first.exemplars, rest.exemplars = inHalf(r.exemplars)
	return first, rest, !first.empty()
}

// inHalf leaves a single element to the second half.
func inHalf[T any](s []T) (first, rest []T) { return s[:len(s)/2], s[len(s)/2:] }

// appendTo appends the encoded record to b.
func (r *record) appendTo(b []byte) []byte {
	b = append(b, recordPush)
	b = appendString(b, r.tenant)
	b = binary.LittleEndian.AppendUint64(b, r.session)
	b = binary.AppendUvarint(b, uint64(len(r.series)))
	for _, s := range r.series {
		b = binary.AppendUvarint(b, uint64(s.ref))
		b = labeltext.Append(b, s.labels)
	}
	b = r.appendSamples(b)
	b = binary.AppendUvarint(b, uint64(len(r.histograms)))
	for _, h := range r.histograms {
		b = appendHistogram(b, h)
	}
	b = binary.AppendUvarint(b, uint64(len(r.exemplars)))
	for _, x := range r.exemplars {
		b = binary.AppendUvarint(b, uint64(x.ref))
		b = binary.AppendVarint(b, x.e.Ts)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x.e.Value))
		b = labeltext.Append(b, x.e.Labels)
	}
	return b
}

// appendSamples writes three columns: references and times as differences to the one before,
// because neighbours in a scrape are neighbours in the head, and values as they are: the log
// compresses whole batches.
func (r *record) appendSamples(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.samples)))
	prev := int64(0)
	for i := range r.samples {
		ref := int64(r.samples[i].ref)
		b = binary.AppendVarint(b, ref-prev)
		prev = ref
	}
	prev = 0
	for i := range r.samples {
		t := r.samples[i].t
		b = binary.AppendVarint(b, t-prev)
		prev = t
	}
	for i := range r.samples {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(r.samples[i].v))
	}
	return b
}

const (
	intHistogram   = 0
	floatHistogram = 1
)

func appendHistogram(b []byte, h histogramSample) []byte {
	b = binary.AppendUvarint(b, uint64(h.ref))
	b = binary.AppendVarint(b, h.t)
	if h.h != nil {
		buf := encoding.Encbuf{B: append(b, intHistogram)}
		tsdbrecord.EncodeHistogram(&buf, h.h)
		return buf.B
	}
	buf := encoding.Encbuf{B: append(b, floatHistogram)}
	tsdbrecord.EncodeFloatHistogram(&buf, h.fh)
	return buf.B
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decode reads a record into r, whose memory it uses again. Nothing in r refers to b afterwards.
func (r *record) decode(b []byte) error {
	r.reset()
	d := decoder{b: b}
	if d.byte() != recordPush {
		return errDamagedRecord
	}
	if name := d.bytes(); string(name) != r.tenant { // one allocation for each change of tenant
		r.tenant = string(name)
	}
	r.session = d.fixed64()
	for range d.count(2) {
		r.series = append(r.series, series{head.Ref(d.uvarint()), d.labels()})
	}
	n := d.count(10)
	if cap(r.samples) < n {
		r.samples = make([]sample, n)
	}
	r.samples = r.samples[:n]
	prev := int64(0)
	for i := range r.samples {
		prev += d.varint()
		r.samples[i].ref = head.Ref(prev)
	}
	prev = 0
	for i := range r.samples {
		prev += d.varint()
		r.samples[i].t = prev
	}
	for i := range r.samples {
		r.samples[i].v = math.Float64frombits(d.fixed64())
	}
	for range d.count(10) {
		r.histograms = append(r.histograms, d.histogramSample())
	}
	for range d.count(11) {
		x := exemplarSample{ref: head.Ref(d.uvarint())}
		x.e.Ts, x.e.HasTs = d.varint(), true
		x.e.Value = math.Float64frombits(d.fixed64())
		x.e.Labels = d.labels()
		r.exemplars = append(r.exemplars, x)
	}
	if d.bad || len(d.b) > 0 {
		return errDamagedRecord
	}
	return nil
}
