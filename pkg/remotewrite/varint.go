package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The wire types of protocol buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireGroup   = 3
	wireEnd     = 4
	wireFixed32 = 5
)

// malformed is the error for a body that breaks the encoding at byte at.
func malformed(what string, at int) error {
	return errs.New(errs.Invalid, "malformed remote write request: %s at byte %d", what, at)
}

// uvarint reads the varint at b[i:]. The position after it is negative if the varint is cut off
// or has over 64 bits.
func uvarint(b []byte, i int) (uint64, int) {
	if i < len(b) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	return longUvarint(b, i)
}

func longUvarint(b []byte, i int) (uint64, int) {
	if i >= len(b) {
		return 0, -1
	}
	if i+1 < len(b) && b[i+1] < 0x80 {
		return uint64(b[i]&0x7f) | uint64(b[i+1])<<7, i + 2
	}
	v, n := binary.Uvarint(b[i:])
	if n <= 0 {
		return 0, -1
	}
	return v, i + n
}

// chunk reads a length at b[i:] and returns where the bytes it announces begin and end. The end
// is negative if they do not lie in b.
func chunk(b []byte, i int) (start, end int) {
	n, p := uvarint(b, i)
	if p < 0 || n > uint64(len(b)-p) {
		return 0, -1
	}
	return p, p + int(n)
}

// tag reads a field tag at b[i:]. The position after it is negative if it is malformed.
func tag(b []byte, i int) (field uint32, wire uint8, next int) {
	v, p := uvarint(b, i)
	if p < 0 || v > math.MaxUint32 || v>>3 == 0 {
		return 0, 0, -1
	}
	return uint32(v >> 3), uint8(v & 7), p
}

// skip returns the position after the value of an unknown field, negative if it is malformed.
// Nested groups are counted, not descended into, so their depth costs no stack.
func skip(b []byte, i int, wire uint8) int {
	depth := 0
	for {
		switch wire {
		case wireVarint:
			_, i = uvarint(b, i)
		case wireFixed64:
			i += 8
		case wireBytes:
			_, i = chunk(b, i)
		case wireGroup:
			depth++
		case wireEnd:
			depth--
		case wireFixed32:
			i += 4
		default:
			return -1
		}
		if i < 0 || i > len(b) || depth < 0 {
			return -1
		}
		if depth == 0 {
			return i
		}
		_, wire, i = tag(b, i)
		if i < 0 {
			return -1
		}
	}
}

// double reads a fixed 64-bit float at b[i:].
func double(b []byte, i int) (float64, int) {
	if len(b)-i < 8 {
		return 0, -1
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b[i:])), i + 8
}

func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
