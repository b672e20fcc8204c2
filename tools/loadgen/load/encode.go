package load

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// Tags of the fields of remote write messages: field number and wire type.
const (
	tagV1Series     = 1<<3 | 2
	tagV1Label      = 1<<3 | 2
	tagV1Samples    = 2<<3 | 2
	tagV1Exemplars  = 3<<3 | 2
	tagV1Histograms = 4<<3 | 2

	tagV2Symbols    = 4<<3 | 2
	tagV2Series     = 5<<3 | 2
	tagV2LabelRefs  = 1<<3 | 2
	tagV2Samples    = 2<<3 | 2
	tagV2Histograms = 3<<3 | 2
	tagV2Exemplars  = 4<<3 | 2

	tagName, tagValue = 1<<3 | 2, 2<<3 | 2 // of a label
	tagSampleValue    = 1<<3 | 1
	tagSampleTime     = 2 << 3
	tagExemplarValue  = 2<<3 | 1
	tagExemplarTime   = 3 << 3
)

// point is what one scrape found for one series.
type point struct {
	t     int64 // Unix milliseconds
	v     float64
	trace uint64 // of the exemplar; 0: none
}

// encoder writes requests by hand: a load generator that marshals messages costs more than the
// server it measures. Its memory is used again for the next request.
type encoder struct {
	out, one, part []byte
	v2             bool
	table          *symbolTable
}

func (e *encoder) begin(m *maker) {
	e.out, e.v2, e.table = e.out[:0], m.o.Version2, &m.table
	if e.v2 {
		for _, s := range e.table.list() {
			e.out = appendString(e.out, tagV2Symbols, s)
		}
	}
}

func (e *encoder) add(s *series, p point) {
	e.one = e.one[:0]
	if e.v2 {
		e.one = appendBytes(e.one, tagV2LabelRefs, s.labels)
	} else {
		e.one = append(e.one, s.labels...)
	}
	switch {
	case s.kind == histogram:
		e.addHistogram(p)
	default:
		e.part = appendSample(e.part[:0], p)
		e.one = appendBytes(e.one, tagV1Samples, e.part) // the same number in 2.0
	}
	if p.trace != 0 {
		e.addExemplar(p)
	}
	if e.v2 {
		e.out = appendBytes(e.out, tagV2Series, e.one)
	} else {
		e.out = appendBytes(e.out, tagV1Series, e.one)
	}
}

func (e *encoder) finish() []byte { return e.out }

func (e *encoder) addExemplar(p point) {
	e.part = e.part[:0]
	trace := fmt.Sprintf("%032x", p.trace)
	tag := byte(tagV1Exemplars)
	if e.v2 {
		// Symbols must not grow with every exemplar: the trace takes one of a few places.
		refs := binary.AppendUvarint(nil, uint64(e.table.ref("trace_id")))
		refs = binary.AppendUvarint(refs, uint64(e.table.traceRef(p.trace)))
		e.part = appendBytes(e.part, tagV2LabelRefs, refs)
		tag = tagV2Exemplars
	} else {
		e.part = appendLabelsV1(e.part, []label{{"trace_id", trace}})
	}
	e.part = append(e.part, tagExemplarValue)
	e.part = binary.LittleEndian.AppendUint64(e.part, math.Float64bits(p.v))
	e.part = append(e.part, tagExemplarTime)
	e.part = binary.AppendUvarint(e.part, uint64(p.t))
	e.one = appendBytes(e.one, tag, e.part)
}

func (e *encoder) addHistogram(p point) {
	h := tsdbutil.GenerateTestHistogram(int64(p.v))
	var m interface{ Marshal() ([]byte, error) }
	tag := byte(tagV1Histograms)
	if e.v2 {
		tag = tagV2Histograms
		v2 := writev2.FromIntHistogram(0, p.t, h)
		m = &v2
	} else {
		v1 := prompb.FromIntHistogram(p.t, h)
		m = &v1
	}
	body, err := m.Marshal()
	if err != nil {
		panic("BUG: marshal a histogram: " + err.Error())
	}
	e.one = appendBytes(e.one, tag, body)
}

// appendSample leaves out a zero value, as protobuf does.
func appendSample(b []byte, p point) []byte {
	if bits := math.Float64bits(p.v); bits != 0 {
		b = append(b, tagSampleValue)
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	b = append(b, tagSampleTime)
	return binary.AppendUvarint(b, uint64(p.t))
}

func appendLabelsV1(b []byte, ls []label) []byte {
	for _, l := range ls {
		n := 2 + varintLen(len(l.name)) + len(l.name) + varintLen(len(l.value)) + len(l.value)
		b = append(b, tagV1Label)
		b = binary.AppendUvarint(b, uint64(n))
		b = appendString(b, tagName, l.name)
		b = appendString(b, tagValue, l.value)
	}
	return b
}

func appendBytes(b []byte, tag byte, field []byte) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

func appendString(b []byte, tag byte, field string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

func varintLen(n int) int {
	l := 1
	for ; n >= 1<<7; n >>= 7 {
		l++
	}
	return l
}

// symbolTable is the symbols of the requests of version 2.0 of one maker; they stay the same from
// scrape to scrape but for those of new targets.
type symbolTable struct {
	refs    map[string]uint32
	symbols []string
}

const traceSymbols = 64

func (s *symbolTable) list() []string {
	if len(s.symbols) == 0 {
		s.ref("")
	}
	return s.symbols
}

// ref returns the reference of symbol.
func (s *symbolTable) ref(symbol string) uint32 {
	if s.refs == nil {
		s.refs = map[string]uint32{"": 0}
		s.symbols = []string{""}
		s.ref("trace_id")
		for i := range traceSymbols {
			s.ref(fmt.Sprintf("%032x", uint64(i)*0x9e3779b97f4a7c15))
		}
	}
	r, ok := s.refs[symbol]
	if !ok {
		r = uint32(len(s.symbols))
		s.symbols = append(s.symbols, symbol)
		s.refs[symbol] = r
	}
	return r
}

func (s *symbolTable) traceRef(trace uint64) uint32 {
	return s.ref("trace_id") + 1 + uint32(trace%traceSymbols)
}

func (s *symbolTable) appendRefs(b []byte, ls []label) []byte {
	for _, l := range ls {
		b = binary.AppendUvarint(b, uint64(s.ref(l.name)))
		b = binary.AppendUvarint(b, uint64(s.ref(l.value)))
	}
	return b
}

// crowded says whether far more symbols are kept than n series can use.
func (s *symbolTable) crowded(n int) bool { return len(s.symbols) > 2*n+4*traceSymbols }
