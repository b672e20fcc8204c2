package work

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// Relayed is a message querypb.FromWorker whose part stays encoded, for a scheduler that passes it on. It
// is what the codec of package transport receives a message into.
type Relayed struct {
	Part  []byte // nil: none
	Done  bool
	Error *querypb.Failure

	memory []byte // of Part, used again
}

// The numbers of the fields of querypb.FromWorker.
const (
	fieldPart  = 2
	fieldDone  = 3
	fieldError = 4
)

// Reset empties m, and keeps its memory.
func (m *Relayed) Reset() { *m = Relayed{memory: m.memory[:0]} }

// Room is the memory that m keeps.
func (m *Relayed) Room() int { return cap(m.memory) }

// UnmarshalVT reads an encoded message, whose memory is the caller's again afterwards. Unknown fields are
// left out. Errors: Internal.
func (m *Relayed) UnmarshalVT(b []byte) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return broken(n)
		}
		b = b[n:]
		switch {
		case number == fieldPart && kind == protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return broken(n)
			}
			m.memory, b = append(m.memory, v...), b[n:] // what comes twice is merged, as protobuf has it
			m.Part = m.memory
		case number == fieldDone && kind == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return broken(n)
			}
			m.Done, b = v != 0, b[n:]
		case number == fieldError && kind == protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return broken(n)
			}
			if m.Error == nil {
				m.Error = new(querypb.Failure)
			}
			if err := m.Error.UnmarshalVT(v); err != nil {
				return errs.New(errs.Internal, "message of a querier: %w", err)
			}
			b = b[n:]
		default:
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return broken(n)
			}
			b = b[n:]
		}
	}
	return nil
}

func broken(n int) error {
	return errs.New(errs.Internal, "message of a querier: %w", protowire.ParseError(n))
}

// EncodedPart is a message querypb.Part that is encoded already, to be sent.
type EncodedPart []byte

// SizeVT is the size of the message.
func (p EncodedPart) SizeVT() int { return len(p) }

// MarshalToSizedBufferVT writes the message to the end of b.
func (p EncodedPart) MarshalToSizedBufferVT(b []byte) (int, error) {
	return copy(b[len(b)-len(p):], p), nil
}
