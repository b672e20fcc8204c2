package remoteread

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/prometheus/prometheus/prompb"
)

// maxFrameBytes bounds one frame of a streamed answer. Servers keep to a megabyte.
const maxFrameBytes = 64 << 20

// Frames reads a streamed answer: length, CRC-32C and bytes of one message after the other.
type Frames struct{ r *bufio.Reader }

// NewFrames returns the frames of r.
func NewFrames(r io.Reader) *Frames { return &Frames{bufio.NewReaderSize(r, 64<<10)} }

// Next reads a message; io.EOF after the last.
func (f *Frames) Next() (*prompb.ChunkedReadResponse, error) {
	size, err := binary.ReadUvarint(f.r)
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, fmt.Errorf("read the length of a frame: %w", err)
	}
	if size > maxFrameBytes {
		return nil, fmt.Errorf("a frame of %d bytes is larger than %d", size, maxFrameBytes)
	}
	var sum [4]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return nil, fmt.Errorf("read the checksum of a frame: %w", cut(err))
	}
	// What is allocated grows with what really comes, whatever the length says.
	data, err := io.ReadAll(io.LimitReader(f.r, int64(size)))
	if err == nil && len(data) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	if got := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); got != binary.BigEndian.Uint32(sum[:]) {
		return nil, errors.New("a frame has the wrong checksum")
	}
	m := new(prompb.ChunkedReadResponse)
	if err := m.Unmarshal(data); err != nil {
		return nil, fmt.Errorf("decode a frame: %w", err)
	}
	return m, nil
}

// cut makes of an end within a frame what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
