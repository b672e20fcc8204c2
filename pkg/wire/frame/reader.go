package frame

import (
	"encoding/binary"
	"math"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// reader takes values off b. After the first value that b cannot hold, every method returns zero
// and end reports the error, so that callers check once.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() {
	r.b, r.failed = nil, true
}

// end reports an error if a value was missing or bytes are left.
func (r *reader) end() error {
	switch {
	case r.failed:
		return errs.New(errs.Invalid, "encoded record is cut or damaged")
	case len(r.b) > 0:
		return errs.New(errs.Invalid, "%d bytes follow the end of an encoded record", len(r.b))
	}
	return nil
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) float() float64 { return math.Float64frombits(r.uint64()) }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads how many items follow and fails unless that many of at least itemBytes fit in what
// is left, so that memory made for them is bounded by bytes received.
func (r *reader) count(itemBytes int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/itemBytes) {
		r.fail()
		return 0
	}
	return int(n)
}

// ref reads an index and its generation.
func (r *reader) ref() Ref {
	index := r.uint32()
	return MakeRef(index, r.uint16())
}

// refBytes is the size of a reference outside the sample columns.
const refBytes = 4 + 2

func appendRef(dst []byte, ref Ref) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, ref.Index())
	return binary.LittleEndian.AppendUint16(dst, ref.Gen())
}

func appendVarint(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, uint64(v<<1)^uint64(v>>63))
}

func appendFloat(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}
