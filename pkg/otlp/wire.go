package otlp

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The wire types of protocol buffers that OTLP uses.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// field is one field of a message.
type field struct {
	number uint32
	wire   uint8
	num    uint64 // of a number
	data   []byte // of what has a length
}

// next reads the field at the start of b and returns what follows it; ok is false if b is malformed.
func (f *field) next(b []byte) (rest []byte, ok bool) {
	tag, n := uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag > math.MaxUint32 {
		return nil, false
	}
	f.number, f.wire, f.data = uint32(tag>>3), uint8(tag&7), nil
	b = b[n:]
	switch f.wire {
	case wireVarint:
		f.num, n = uvarint(b)
		if n <= 0 {
			return nil, false
		}
		return b[n:], true
	case wireFixed64:
		if len(b) < 8 {
			return nil, false
		}
		f.num = binary.LittleEndian.Uint64(b)
		return b[8:], true
	case wireBytes:
		size, n := uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, false
		}
		end := n + int(size)
		f.data = b[n:end:end]
		return b[end:], true
	case wireFixed32:
		if len(b) < 4 {
			return nil, false
		}
		f.num = uint64(binary.LittleEndian.Uint32(b))
		return b[4:], true
	}
	return nil, false // groups, which OTLP never had
}

// is says whether f is the field number of the wire type wire.
func (f *field) is(number uint32, wire uint8) bool { return f.number == number && f.wire == wire }

// double is the value of a field of 64 bits as a number.
func (f *field) double() float64 { return math.Float64frombits(f.num) }

// uvarint reads the varint at the start of b; n is not positive if there is none.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// zigzag undoes the coding of signed numbers of 32 bits.
func zigzag(v uint64) int32 { return int32(uint32(v>>1) ^ -uint32(v&1)) }

// fixed64 appends the numbers of a repeated field of 64 bits, packed or one by one.
func (f *field) fixed64(dst []uint64) ([]uint64, bool) {
	switch f.wire {
	case wireFixed64:
		return append(dst, f.num), true
	case wireBytes:
		for b := f.data; len(b) >= 8; b = b[8:] {
			dst = append(dst, binary.LittleEndian.Uint64(b))
		}
		return dst, len(f.data)%8 == 0
	}
	return dst, false
}

// doubles is fixed64 for floating point numbers.
func (f *field) doubles(dst []float64) ([]float64, bool) {
	switch f.wire {
	case wireFixed64:
		return append(dst, f.double()), true
	case wireBytes:
		for b := f.data; len(b) >= 8; b = b[8:] {
			dst = append(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		return dst, len(f.data)%8 == 0
	}
	return dst, false
}

// varints is fixed64 for numbers of variable length.
func (f *field) varints(dst []uint64) ([]uint64, bool) {
	switch f.wire {
	case wireVarint:
		return append(dst, f.num), true
	case wireBytes:
		for b := f.data; len(b) > 0; {
			v, n := uvarint(b)
			if n <= 0 {
				return dst, false
			}
			dst, b = append(dst, v), b[n:]
		}
		return dst, true
	}
	return dst, false
}

// malformed is the error for a message that breaks the encoding.
func malformed(what string) error {
	return errs.New(errs.Invalid, "malformed OTLP request: %s", what)
}

// view returns b as a string without copying it. The body of a request does not change while it is
// translated, and no view outlives that.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
