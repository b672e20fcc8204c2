package remotewrite

import (
	"math"

	"github.com/prometheus/common/model"
)

// Metadata describes a metric family; Name, Help and Unit are valid as long as the body is.
type Metadata struct {
	Type             string // the Prometheus text form, "counter"
	Name, Help, Unit []byte
}

// metricTypes are the Prometheus text forms in the order of both protocols' enumerations.
var metricTypes = [...]model.MetricType{model.MetricTypeUnknown, model.MetricTypeCounter, model.MetricTypeGauge,
	model.MetricTypeHistogram, model.MetricTypeGaugeHistogram, model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset}

// metricType returns v, or 0 (unknown) for a number no version of the protocol names.
func metricType(v uint64) uint8 {
	if v >= uint64(len(metricTypes)) {
		return 0
	}
	return uint8(v)
}

// MetadataCount is the number of metadata entries of an RW 1.0 request.
func (b *Batch) MetadataCount() int { return len(b.metadata) }

// Metadata decodes entry j of an RW 1.0 request. Errors: Invalid.
func (b *Batch) Metadata(j int) (Metadata, error) {
	var m Metadata
	kind := uint8(0)
	s := b.metadata[j]
	p := b.bytes(s)
	for i := 0; i < len(p); {
		field, wire, at := tag(p, i)
		if at < 0 {
			return m, malformed("metadata", int(s.off)+i)
		}
		var v uint64
		var from, e int
		switch field {
		case 1:
			if v, e = uvarint(p, at); wire != wireVarint || v > math.MaxInt32 {
				e = -1
			}
			kind = metricType(v)
		case 2, 4, 5:
			if from, e = chunk(p, at); wire != wireBytes {
				e = -1
			}
		default:
			e = skip(p, at, wire)
		}
		if e < 0 {
			return m, malformed("metadata", int(s.off)+i)
		}
		switch field {
		case 2:
			m.Name = p[from:e]
		case 4:
			m.Help = p[from:e]
		case 5:
			m.Unit = p[from:e]
		}
		i = e
	}
	m.Type = string(metricTypes[kind])
	return m, nil
}

// SeriesMetadataHash changes with what series i says about its family; 0: it says nothing.
func (b *Batch) SeriesMetadataHash(i int) uint64 {
	if j := b.series[i].meta; j > 0 {
		return b.metas[j-1].hash | 1
	}
	return 0
}

// SeriesMetadata is what series i says about its family; Name is not set. It must say something.
func (b *Batch) SeriesMetadata(i int) Metadata {
	m := b.metas[b.series[i].meta-1]
	return Metadata{Type: string(metricTypes[m.kind]), Help: b.symbol(m.help), Unit: b.symbol(m.unit)}
}

// MarkTypeAndUnit makes the hash of each series depend on the type and the unit that its metadata
// says, for a receiver that makes labels of them.
func (b *Batch) MarkTypeAndUnit(k *Keys) {
	for i := range b.series {
		j := b.series[i].meta
		if j == 0 {
			continue
		}
		if m := &b.metas[j-1]; m.kind != 0 || b.symbols[m.unit].n > 0 {
			b.Hashes[i] = k.mix(b.Hashes[i], k.mix(Hash{k.metaHi ^ uint64(m.kind), k.metaLo}, b.symHashes[m.unit]))
		}
	}
}

// Exemplar is one exemplar without its labels.
type Exemplar struct {
	Value float64
	Time  int64 // milliseconds
}

// Exemplar decodes exemplar j and appends the first limit of its labels to dst; it returns dst
// and how many labels there are. Errors: Invalid.
func (b *Batch) Exemplar(j int, dst []Label, limit int) (Exemplar, []Label, int, error) {
	var x Exemplar
	s := b.exemplars[j]
	p := b.bytes(s)
	r := exemplarLabels{b: b, labels: dst, limit: limit}
	for i := 0; i < len(p); {
		field, wire, at := tag(p, i)
		if at < 0 {
			return x, dst, 0, malformed("exemplar", int(s.off)+i)
		}
		e := -1
		var t uint64
		switch field {
		case 1:
			e = r.read(p, at, wire)
		case 2:
			if wire == wireFixed64 {
				x.Value, e = double(p, at)
			}
		case 3:
			if wire == wireVarint {
				t, e = uvarint(p, at)
				x.Time = int64(t)
			}
		default:
			e = skip(p, at, wire)
		}
		if e < 0 {
			return x, dst, 0, malformed("exemplar", int(s.off)+i)
		}
		i = e
	}
	if r.odd {
		return x, dst, 0, malformed("odd number of label references in the exemplar", int(s.off))
	}
	return x, r.labels, r.n, nil
}

// exemplarLabels gathers the labels of an exemplar, which may be spread over several fields.
type exemplarLabels struct {
	b      *Batch
	labels []Label
	n      int
	limit  int
	odd    bool // the name of a pair was read, its value not yet
	name   []byte
}

// read takes one field 1 and returns the position after it, negative if it is malformed.
func (r *exemplarLabels) read(p []byte, at int, wire uint8) int {
	if r.b.version == V1 {
		s, e := chunk(p, at)
		if wire != wireBytes || e < 0 {
			return -1
		}
		l, ok := labelV1(p[:e], s)
		if !ok {
			return -1
		}
		r.add(l)
		return e
	}
	e := 0
	switch wire {
	case wireVarint:
		_, e = uvarint(p, at)
	case wireBytes:
		at, e = chunk(p, at)
	default:
		return -1
	}
	for at < e {
		var ref uint64
		if ref, at = uvarint(p[:e], at); at < 0 || ref >= uint64(len(r.b.symbols)) {
			return -1
		}
		if s := r.b.symbol(uint32(ref)); r.odd {
			r.add(Label{r.name, s})
		} else {
			r.name = s
		}
		r.odd = !r.odd
	}
	return e
}

func (r *exemplarLabels) add(l Label) {
	if r.n++; r.n <= r.limit {
		r.labels = append(r.labels, l)
	}
}
