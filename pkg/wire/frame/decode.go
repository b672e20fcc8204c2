package frame

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

const (
	// The least bytes an item takes on the wire; counts are checked against them.
	minSampleBytes    = 4 + 8 + 1
	minHistogramBytes = refBytes + 26
	minDefBytes       = refBytes + 4 + 1
	minExemplarBytes  = refBytes + 1 + 8 + 1
	minMetadataBytes  = 1 + 1 + 3 // A metric family has a name.

	// maxTenants bounds the tenant names a Decoder remembers so as not to allocate them again.
	maxTenants = 1024
)

// Decoder decodes frames. Its zero value is ready; it is not safe for concurrent use.
type Decoder struct {
	tenants map[string]string
	symbols []symbol
	builder labeltext.Builder
}

// symbol is the place of a text in the body.
type symbol struct{ offset, length uint32 }

// DecodeFrame decodes rec into f, whose memory is used again and which owns all its memory
// afterwards, so that rec's may be reused. After an error f is not to be used. Errors: Invalid,
// Unimplemented (another version).
func (d *Decoder) DecodeFrame(rec Record, f *Frame) error {
	f.Reset()
	if err := checkVersion(rec); err != nil {
		return err
	}
	in := reader{b: rec.Body}
	flags, source := in.byte(), Source(in.byte())
	if flags&^knownFlags != 0 || source > Rule {
		return errs.New(errs.Invalid, "frame has unknown flags %#x or source %d", flags, source)
	}
	f.Source = source
	f.Tenant = d.tenant(in.bytes(in.count(1)))
	decodeSamples(&in, f, flags)
	if n := in.count(minHistogramBytes); n > 0 {
		f.Histograms = slices.Grow(f.Histograms, n)
		for range n {
			if in.failed {
				break
			}
			f.Histograms = append(f.Histograms, readHistogram(&in))
		}
	}
	if err := d.decodeLabelled(&in, rec.Body, f); err != nil {
		return err
	}
	for range in.count(minMetadataBytes) {
		m := Metadata{Name: in.string(), Type: in.string(), Help: in.string(), Unit: in.string()}
		if m.Name == "" {
			in.fail()
			break
		}
		f.Metadata = append(f.Metadata, m)
	}
	return in.end()
}

func (r *reader) string() string { return string(r.bytes(r.count(1))) }

func (d *Decoder) tenant(b []byte) string {
	if t, ok := d.tenants[string(b)]; ok {
		return t
	}
	t := string(b)
	if len(d.tenants) >= maxTenants {
		clear(d.tenants)
	}
	if d.tenants == nil {
		d.tenants = make(map[string]string)
	}
	d.tenants[t] = t
	return t
}

func decodeSamples(in *reader, f *Frame, flags byte) {
	n := in.count(minSampleBytes)
	if n == 0 {
		return
	}
	f.Refs = slices.Grow(f.Refs, n)[:n]
	if col := in.bytes(4 * n); col != nil {
		for i := range f.Refs {
			f.Refs[i] = Ref(binary.LittleEndian.Uint32(col[4*i:]))
		}
	}
	if flags&flagGenerations != 0 {
		if col := in.bytes(2 * n); col != nil {
			for i := range f.Refs {
				f.Refs[i] |= Ref(binary.LittleEndian.Uint16(col[2*i:])) << 32
			}
		}
	}
	f.Values = slices.Grow(f.Values, n)[:n]
	if col := in.bytes(8 * n); col != nil {
		for i := range f.Values {
			f.Values[i] = math.Float64frombits(binary.LittleEndian.Uint64(col[8*i:]))
		}
	}
	f.Times = in.deltas(f.Times, n)
	if flags&flagStartTimes != 0 {
		f.StartTimes = in.deltas(f.StartTimes, n)
	}
}

// deltas reads n times into the memory of times.
func (r *reader) deltas(times []int64, n int) []int64 {
	if n > len(r.b) {
		r.fail()
		return times
	}
	times = slices.Grow(times, n)[:n]
	last := int64(0)
	for i := range times {
		if len(r.b) > 0 && r.b[0] == 0 {
			r.b = r.b[1:]
		} else {
			last += r.varint()
		}
		times[i] = last
	}
	return times
}

// decodeLabelled reads symbols, definitions and exemplars. body is what symbols are places in.
func (d *Decoder) decodeLabelled(in *reader, body []byte, f *Frame) error {
	d.symbols = d.symbols[:0]
	for range in.count(1) {
		n := in.count(1)
		offset := len(body) - len(in.b)
		in.bytes(n)
		if n > maxSymbolBytes {
			return errs.New(errs.Invalid, "label text of %d bytes, at most %d are allowed", n, maxSymbolBytes)
		}
		d.symbols = append(d.symbols, symbol{uint32(offset), uint32(n)})
	}
	budget := maxLabelBytes
	if n := in.count(minDefBytes); n > 0 {
		f.Defs = slices.Grow(f.Defs, n)
		for range n {
			def := Def{Ref: in.ref(), Token: in.uint32()}
			var err error
			if def.Labels, err = d.labels(in, body, &budget); err != nil {
				return err
			}
			f.Defs = append(f.Defs, def)
		}
	}
	if n := in.count(minExemplarBytes); n > 0 {
		f.Exemplars = slices.Grow(f.Exemplars, n)
		for range n {
			x := Exemplar{Ref: in.ref(), Time: in.varint(), Value: in.float()}
			var err error
			if x.Labels, err = d.labels(in, body, &budget); err != nil {
				return err
			}
			f.Exemplars = append(f.Exemplars, x)
		}
	}
	if cap(d.symbols) > maxKeptBytes/8 {
		d.symbols = nil
	}
	return nil
}

// labels reads labels, checks that they are sorted, unique and named, and takes their size off
// budget.
func (d *Decoder) labels(in *reader, body []byte, budget *int) (labels.Labels, error) {
	d.builder.Reset()
	var last []byte
	for range in.count(2) {
		name, value := d.text(in, body), d.text(in, body)
		if in.failed {
			break
		}
		if bytes.Compare(last, name) >= 0 { // An empty name is not greater than nothing.
			return labels.EmptyLabels(), errs.New(errs.Invalid, "label names %q, %q are not sorted and unique", last, name)
		}
		if *budget -= len(name) + len(value); *budget < 0 {
			return labels.EmptyLabels(), errs.New(errs.Invalid, "labels of a frame take more than %d bytes", maxLabelBytes)
		}
		d.builder.Add(name, value)
		last = name
	}
	if err := in.cut(); err != nil {
		return labels.EmptyLabels(), err
	}
	return d.builder.Labels(), nil
}

// cut reports an error if a value was missing.
func (r *reader) cut() error {
	if !r.failed {
		return nil
	}
	return r.end()
}

func (d *Decoder) text(in *reader, body []byte) []byte {
	i := in.uvarint()
	if i >= uint64(len(d.symbols)) {
		in.fail()
		return nil
	}
	s := d.symbols[i]
	return body[s.offset : s.offset+s.length]
}
