package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/s2"
)

// The on-disk format is drawn in FORMAT.md.
const (
	fileMagic   = "AMPHWAL\x01" // the last byte is the version
	blockMagic  = "\xf7aB\x9c"
	kindSegment = byte('S')
	kindCheck   = byte('C')

	// flagAbandoned in the header of a segment says that its writer gave up the segment before
	// it: blocks there that carry the first sequence number of this segment or a later one were
	// never acknowledged.
	flagAbandoned = byte(1)

	fileHeaderBytes  = 32
	blockHeaderBytes = 36

	codecNone = byte(0)    // payload is the raw block
	codecS2   = byte(1)    // payload is one s2 block
	codecEnd  = byte(0xff) // last block of a checkpoint, payload is its number of records
)

const (
	// maxRecordBytes bounds one record. It is far above a push of the largest size an ingester
	// takes, and small enough to decode a hostile length without harm.
	maxRecordBytes = 16 << 20
	// maxRawBytes bounds a decompressed block: a batch ends before it would exceed its own size
	// unless one record alone is larger.
	maxRawBytes = maxRecordBytes + binary.MaxVarintLen32
)

// fileHeader opens every segment and checkpoint.
type fileHeader struct {
	kind, flags byte
	number      int
	firstSeq    uint64 // sequence number of the first block
	salt        uint32 // repeated by every block, so that a record cannot pose as a block
}

func (h fileHeader) encode() []byte {
	b := make([]byte, 0, fileHeaderBytes)
	b = append(b, fileMagic...)
	b = append(b, h.kind, h.flags, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.number))
	b = binary.LittleEndian.AppendUint64(b, h.firstSeq)
	b = binary.LittleEndian.AppendUint32(b, h.salt)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func parseFileHeader(b []byte) (fileHeader, error) {
	switch {
	case len(b) < fileHeaderBytes:
		return fileHeader{}, errors.New("file ends within its header")
	case string(b[:8]) != fileMagic:
		return fileHeader{}, errors.New("no file header")
	case checksum(b[:28]) != binary.LittleEndian.Uint32(b[28:]):
		return fileHeader{}, errors.New("checksum of the file header does not match")
	}
	return fileHeader{
		kind: b[8], flags: b[9],
		number:   int(binary.LittleEndian.Uint32(b[12:])),
		firstSeq: binary.LittleEndian.Uint64(b[16:]),
		salt:     binary.LittleEndian.Uint32(b[24:]),
	}, nil
}

// blockHeader stands before the payload of every block.
type blockHeader struct {
	salt        uint32
	seq         uint64
	stored, raw int // bytes of the payload, and of what it decodes to
	payloadSum  uint32
	codec       byte
}

func (h blockHeader) put(b []byte) {
	copy(b, blockMagic)
	binary.LittleEndian.PutUint32(b[4:], h.salt)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint32(b[16:], uint32(h.stored))
	binary.LittleEndian.PutUint32(b[20:], uint32(h.raw))
	binary.LittleEndian.PutUint32(b[24:], h.payloadSum)
	binary.LittleEndian.PutUint32(b[28:], uint32(h.codec))
	binary.LittleEndian.PutUint32(b[32:], checksum(b[:32]))
}

// parseBlockHeader checks everything a header can be checked for without its payload, so its
// lengths may be trusted.
func parseBlockHeader(b []byte) (blockHeader, error) {
	switch {
	case string(b[:4]) != blockMagic:
		return blockHeader{}, errors.New("no block header")
	case checksum(b[:32]) != binary.LittleEndian.Uint32(b[32:]):
		return blockHeader{}, errors.New("checksum of the block header does not match")
	}
	h := blockHeader{
		salt:       binary.LittleEndian.Uint32(b[4:]),
		seq:        binary.LittleEndian.Uint64(b[8:]),
		payloadSum: binary.LittleEndian.Uint32(b[24:]),
		codec:      b[28],
	}
	stored, raw := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	switch {
	case stored > maxRawBytes || raw > maxRawBytes:
		return blockHeader{}, fmt.Errorf("block declares %d bytes stored and %d decoded, more than any writer makes", stored, raw)
	case h.codec != codecNone && h.codec != codecS2 && h.codec != codecEnd:
		return blockHeader{}, fmt.Errorf("unknown codec %d", h.codec)
	}
	h.stored, h.raw = int(stored), int(raw)
	return h, nil
}

// appendBlock appends raw to dst as one framed block. The array behind dst is reused when it is
// large enough.
func appendBlock(dst, raw []byte, h blockHeader) []byte {
	start := len(dst)
	need := start + blockHeaderBytes + s2.MaxEncodedLen(len(raw))
	if cap(dst) < need {
		dst = append(make([]byte, 0, need), dst...)
	}
	body := dst[start+blockHeaderBytes : need]
	payload := raw
	if h.codec != codecEnd {
		h.codec = codecS2
		if payload = s2.Encode(body, raw); len(payload) >= len(raw) {
			h.codec, payload = codecNone, raw
		}
	}
	if h.codec != codecS2 {
		copy(body, raw)
	}
	h.raw, h.stored, h.payloadSum = len(raw), len(payload), checksum(payload)
	dst = dst[:start+blockHeaderBytes+len(payload)]
	h.put(dst[start:])
	return dst
}

// decodeBlock returns the raw bytes of a block whose checksums hold; they lie in buf if it is
// large enough. The memory it asks for is bounded by maxRawBytes.
func decodeBlock(buf []byte, h blockHeader, payload []byte) ([]byte, error) {
	if h.codec != codecS2 {
		if h.raw != len(payload) {
			return nil, fmt.Errorf("block declares %d bytes, holds %d", h.raw, len(payload))
		}
		return append(buf[:0], payload...), nil
	}
	n, err := s2.DecodedLen(payload)
	if err != nil {
		return nil, fmt.Errorf("decode block: %w", err)
	}
	if n != h.raw {
		return nil, fmt.Errorf("block declares %d bytes, its payload %d", h.raw, n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	raw, err := s2.Decode(buf[:n], payload)
	if err != nil {
		return nil, fmt.Errorf("decode block: %w", err)
	}
	return raw, nil
}

// appendRecord appends one record to a raw block.
func appendRecord(raw, rec []byte) []byte {
	raw = binary.AppendUvarint(raw, uint64(len(rec)))
	return append(raw, rec...)
}

// cutRecord splits the first record off a raw block.
func cutRecord(raw []byte) (rec, rest []byte, err error) {
	n, w := binary.Uvarint(raw)
	if w <= 0 || n > uint64(len(raw)-w) {
		return nil, nil, errors.New("record length runs past the end of its block")
	}
	return raw[w : w+int(n)], raw[w+int(n):], nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
