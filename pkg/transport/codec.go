package transport

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// codec is the message codec of our clients and servers. Frames and results travel as encoded
// bytes in pooled buffers (outgoing, incoming), messages with vtproto methods use them, all
// others are left to gRPC's own codec. It is set per client and server, not registered, so that
// other users of gRPC in the process keep theirs.
type codec struct {
	stock encoding.CodecV2
	pool  mem.BufferPool
}

func newCodec(pool mem.BufferPool) *codec {
	return &codec{stock: encoding.GetCodecV2(proto.Name), pool: pool}
}

// Name is the content subtype: on the wire all of it is plain protobuf.
func (*codec) Name() string { return proto.Name }

// outgoing is an encoded ingesterpb.Frames or Results; sending it gives its buffer away.
type outgoing struct{ buf mem.Buffer }

// incoming is a received ingesterpb.Frames or Results. data is a view of buf, which whoever
// received it frees.
type incoming struct {
	buf  mem.Buffer
	data []byte
}

// vtOutgoing and vtIncoming are what the generator of ingesterpb adds to a message.
type (
	vtOutgoing interface {
		SizeVT() int
		MarshalToSizedBufferVT([]byte) (int, error)
	}
	vtIncoming interface {
		Reset()
		UnmarshalVT([]byte) error
	}
)

// Marshal implements encoding.CodecV2.
func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *outgoing:
		return mem.BufferSlice{m.buf}, nil
	case vtOutgoing:
		size := m.SizeVT()
		buf := c.pool.Get(size)
		n, err := m.MarshalToSizedBufferVT((*buf)[:size])
		if err == nil && n != size {
			err = errs.New(errs.Internal, "%d bytes written, %d announced", n, size)
		}
		if err != nil {
			c.pool.Put(buf)
			return nil, fmt.Errorf("marshal %T: %w", v, err)
		}
		return mem.BufferSlice{mem.NewBuffer(buf, c.pool)}, nil
	}
	return c.stock.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *incoming:
		buf := data.MaterializeToBuffer(c.pool)
		payload, err := envelopePayload(buf.ReadOnlyData())
		if err != nil {
			buf.Free()
			return err
		}
		m.buf, m.data = buf, payload
		return nil
	case *ingesterpb.QueryResponse:
		return c.keep(data, packedChunksField, &m.Packed, m)
	case *querypb.Part:
		return c.keep(data, packedPointsField, &m.Packed, m)
	case *storepb.SeriesResponse:
		return c.keep(data, packedBlocksField, &m.Packed, m)
	case vtIncoming:
		buf := data.MaterializeToBuffer(c.pool)
		defer buf.Free()
		m.Reset()
		if m.UnmarshalVT(buf.ReadOnlyData()) == nil {
			return nil
		}
		// vtproto refuses fields of an unexpected type, which protobuf takes as unknown ones.
		return c.stock.Unmarshal(data, v)
	}
	return c.stock.Unmarshal(data, v)
}

// The numbers of QueryResponse.packed, Part.packed and SeriesResponse.packed, which nearly all of these messages is.
const (
	packedChunksField = 3
	packedPointsField = 14
	packedBlocksField = 4
)

// keep reads a message whose field of that number becomes a view of the memory it came in, which the message
// keeps. Only what else it has is copied.
func (c *codec) keep(data mem.BufferSlice, number protowire.Number, field *[]byte, m vtIncoming) error {
	m.Reset()
	b := data.Materialize()
	from := 0 // of what is not read
	var view []byte
	for at := 0; at < len(b); {
		num, kind, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return c.stock.Unmarshal(data, m) // which words the error
		}
		size := protowire.ConsumeFieldValue(num, kind, b[at+n:])
		if size < 0 {
			return c.stock.Unmarshal(data, m)
		}
		if num == number && kind == protowire.BytesType {
			if m.UnmarshalVT(b[from:at]) != nil {
				return c.stock.Unmarshal(data, m)
			}
			view, _ = protowire.ConsumeBytes(b[at+n:]) // it was just measured; the last one counts
			from = at + n + size
		}
		at += n + size
	}
	if m.UnmarshalVT(b[from:]) != nil {
		return c.stock.Unmarshal(data, m)
	}
	if view != nil {
		*field = view[:len(view):len(view)]
	}
	return nil
}

// envelopeField is the number of Frames.data and Results.data.
const envelopeField = 1

// maxEnvelopeBytes is what an envelope adds to its data.
const maxEnvelopeBytes = 1 + binary.MaxVarintLen32

// appendEnvelope appends what stands in front of data of n bytes.
func appendEnvelope(dst []byte, n int) []byte {
	dst = protowire.AppendTag(dst, envelopeField, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(n))
}

// envelopePayload returns the data field of a message. Other fields are skipped; of several data
// fields the last counts, as protobuf has it.
func envelopePayload(b []byte) ([]byte, error) {
	var payload []byte
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, errs.New(errs.Invalid, "message envelope: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if num == envelopeField && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, errs.New(errs.Invalid, "message envelope: %w", protowire.ParseError(n))
			}
			payload, b = v, b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil, errs.New(errs.Invalid, "message envelope: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return payload, nil
}
