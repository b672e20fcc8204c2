package frame

import (
	"encoding/binary"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Version is the version of the encoding of frames and results that this package writes and the
// only one it reads.
const Version = 1

const (
	lengthBytes = 4
	// headerBytes is the length, the version and the sequence number in front of a body.
	headerBytes = lengthBytes + 1 + 8
	// MaxRecordBytes bounds one encoded frame or result. It is under the 100 MB that a gRPC
	// message may have.
	MaxRecordBytes = 96 << 20
)

// Record is one frame or result of a message, still encoded. Body shares the message's memory.
type Record struct {
	Version  uint8
	Sequence uint64
	Body     []byte
}

// Next splits the first record off message, which holds records back to back. An error (Invalid)
// means that the framing is lost and that nothing of message can be trusted any more.
func Next(message []byte) (rec Record, rest []byte, err error) {
	if len(message) < headerBytes {
		return Record{}, nil, errs.New(errs.Invalid, "record header needs %d bytes, %d are left", headerBytes, len(message))
	}
	n := binary.LittleEndian.Uint32(message)
	if n < headerBytes-lengthBytes || n > MaxRecordBytes || uint64(n) > uint64(len(message)-lengthBytes) {
		return Record{}, nil, errs.New(errs.Invalid, "record of %d bytes in a message of %d", n, len(message)-lengthBytes)
	}
	end := lengthBytes + int(n)
	return Record{
		Version:  message[lengthBytes],
		Sequence: binary.LittleEndian.Uint64(message[lengthBytes+1:]),
		Body:     message[headerBytes:end:end],
	}, message[end:], nil
}

// SetSequence gives record, which AppendFrame or AppendResult made, another sequence number, so
// that a frame can be encoded before its place in a stream is known.
func SetSequence(record []byte, sequence uint64) {
	binary.LittleEndian.PutUint64(record[lengthBytes+1:], sequence)
}

// appendHeader appends the header of a record whose body follows; closeRecord fills its length in.
func appendHeader(dst []byte, sequence uint64) []byte {
	dst = append(dst, 0, 0, 0, 0, Version)
	return binary.LittleEndian.AppendUint64(dst, sequence)
}

// closeRecord completes the record that starts at start and ends with dst.
func closeRecord(dst []byte, start int) ([]byte, error) {
	n := len(dst) - start - lengthBytes
	if n > MaxRecordBytes {
		return dst[:start], errs.New(errs.BodyTooLarge, "encoded frame has %d bytes, at most %d are allowed", n, MaxRecordBytes)
	}
	binary.LittleEndian.PutUint32(dst[start:], uint32(n))
	return dst, nil
}

func checkVersion(rec Record) error {
	if rec.Version != Version {
		return errs.New(errs.Unimplemented, "encoding version %d is not known, only %d is", rec.Version, Version)
	}
	return nil
}

// AppendResult appends the record of r to dst.
func AppendResult(dst []byte, sequence uint64, r *Result) []byte {
	start := len(dst)
	dst = appendHeader(dst, sequence)
	dst = append(dst, byte(r.Outcome), byte(r.Kind))
	dst = binary.AppendUvarint(dst, uint64(max(0, r.Rejected)))
	dst = binary.AppendUvarint(dst, uint64(len(r.Unknown)))
	for _, ref := range r.Unknown {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(ref))
	}
	// The cut bounds the record; what else it holds is bounded by the frame it answers.
	message := r.Message[:min(len(r.Message), maxMessageBytes)]
	dst = binary.AppendUvarint(dst, uint64(len(message)))
	dst = append(dst, message...)
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-lengthBytes))
	return dst
}

// maxMessageBytes bounds the text of a result's error.
const maxMessageBytes = 64 << 10

// DecodeResult decodes rec into r, which owns its memory afterwards; the memory of r.Unknown is
// used again. Errors: Invalid, Unimplemented (another version).
func DecodeResult(rec Record, r *Result) error {
	if err := checkVersion(rec); err != nil {
		return err
	}
	in := reader{b: rec.Body}
	outcome, kind := Outcome(in.byte()), errs.Kind(in.byte())
	if outcome > Failed {
		return errs.New(errs.Invalid, "outcome %d is not known", outcome)
	}
	if !kind.Valid() {
		kind = errs.Internal
	}
	rejected := in.uvarint()
	n := in.count(8)
	unknown := r.Unknown[:0]
	for range n {
		unknown = append(unknown, Ref(in.uint64()))
	}
	message := in.bytes(in.count(1))
	if err := in.end(); err != nil {
		return err
	}
	if rejected > maxRejected {
		return errs.New(errs.Invalid, "result rejects %d samples", rejected)
	}
	*r = Result{Outcome: outcome, Unknown: unknown, Kind: kind, Message: string(message), Rejected: int(rejected)}
	return nil
}

// maxRejected keeps Result.Rejected an int everywhere: no frame holds as many samples.
const maxRejected = 1<<31 - 1
