package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// windowBytes is how much of a file is read at a time.
	windowBytes = 1 << 20
	// strideBytes is what a search skips where the disk cannot be read.
	strideBytes = 64 << 10
	// mostReadErrors bounds the attempts on a disk that cannot be read: each may take seconds.
	mostReadErrors = 64
	// scanFactor bounds the bytes whose checksums a search computes, in sizes of the file, so that
	// a hand-made file cannot make it take for ever.
	scanFactor = 8
)

// block is one block whose checksums hold. payload is valid until the next call of its scanner.
type block struct {
	blockHeader
	off     int64
	payload []byte
}

// gap is a stretch of a file in which no block was found.
type gap struct {
	off, bytes int64
	cause      error // what was wrong at off
}

// scanner reads the blocks of one file and steps over what is not one.
type scanner struct {
	r    io.ReaderAt
	size int64

	header    fileHeader
	headerErr error // why header is not known

	off        int64 // where the next block is expected
	salt       uint32
	salted     bool // salt is known
	budget     int64
	readErrors int

	window    []byte // of the file at windowOff
	windowOff int64
}

func newScanner(r io.ReaderAt, size int64) *scanner {
	s := &scanner{r: r, size: size, off: min(fileHeaderBytes, size), budget: scanFactor * size}
	b, err := s.view(0, min(fileHeaderBytes, size))
	if err == nil {
		s.header, err = parseFileHeader(b)
	}
	if s.headerErr = err; err == nil {
		s.salt, s.salted = s.header.salt, true
	}
	return s
}

// unreadable says whether the disk refused to show some of the file.
func (s *scanner) unreadable() bool { return s.readErrors > 0 }

// view returns n bytes at off, which must lie in the file. They are valid until the next view.
func (s *scanner) view(off, n int64) ([]byte, error) {
	if from := off - s.windowOff; from >= 0 && from+n <= int64(len(s.window)) {
		return s.window[from : from+n], nil
	}
	size := int(min(max(n, windowBytes), s.size-off))
	if cap(s.window) < size {
		s.window = make([]byte, size)
	}
	s.window, s.windowOff = s.window[:size], off
	got, err := s.r.ReadAt(s.window, off)
	if int64(got) >= n {
		s.window = s.window[:got]
		return s.window[:n], nil
	}
	s.window = s.window[:0]
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	s.readErrors++
	return nil, err
}

// next returns the next block, and the damage before it, if any. At the end of the file it
// returns io.EOF, and the damage there; it returns no other error.
func (s *scanner) next() (block, *gap, error) {
	start := s.off
	if start >= s.size {
		return block{}, nil, io.EOF
	}
	var cause error
	for pos := start; ; {
		b, end, err := s.blockAt(pos)
		if err == nil {
			s.off = end
			if pos == start {
				return b, nil, nil
			}
			return b, &gap{start, pos - start, cause}, nil
		}
		if cause == nil {
			cause = err
		}
		// A sound header says where its block ends, even if the payload is damaged; that is
		// believed when another sound header stands there.
		if end > pos && s.soundHeader(end) {
			pos = end
			continue
		}
		if pos = s.find(pos + 1); pos < 0 {
			s.off = s.size
			return block{}, &gap{start, s.size - start, cause}, io.EOF
		}
	}
}

// headerAt reads the block header at off.
func (s *scanner) headerAt(off int64) (blockHeader, error) {
	if s.size-off < blockHeaderBytes {
		return blockHeader{}, errors.New("file ends within a block header")
	}
	b, err := s.view(off, blockHeaderBytes)
	if err != nil {
		return blockHeader{}, fmt.Errorf("read: %w", err)
	}
	h, err := parseBlockHeader(b)
	if err == nil && s.salted && h.salt != s.salt {
		err = errors.New("block of another file")
	}
	return h, err
}

func (s *scanner) soundHeader(off int64) bool {
	_, err := s.headerAt(off)
	return err == nil
}

// blockAt reads the block at off. end is where the block ends, if its header is sound, else 0.
func (s *scanner) blockAt(off int64) (b block, end int64, err error) {
	h, err := s.headerAt(off)
	if err != nil {
		return block{}, 0, err
	}
	end = off + blockHeaderBytes + int64(h.stored)
	if end > s.size {
		return block{}, 0, errors.New("file ends within a block")
	}
	whole, err := s.view(off, blockHeaderBytes+int64(h.stored))
	if err != nil {
		return block{}, end, fmt.Errorf("read: %w", err)
	}
	payload := whole[blockHeaderBytes:]
	if checksum(payload) != h.payloadSum {
		s.budget -= int64(len(whole))
		return block{}, end, errors.New("checksum of the block does not match")
	}
	s.salt, s.salted = h.salt, true
	return block{h, off, payload}, end, nil
}

// find returns the place of the next sound block header at or after off, or -1.
func (s *scanner) find(off int64) int64 {
	mark := s.mark()
	for s.size-off >= blockHeaderBytes && s.budget >= 0 && s.readErrors < mostReadErrors {
		n := min(strideBytes, s.size-off)
		b, err := s.view(off, n)
		if err != nil {
			off += n
			continue
		}
		at := bytes.Index(b, mark)
		if at < 0 {
			off += n - int64(len(mark)) + 1 // the mark may lie across the edge
			continue
		}
		if off += int64(at); s.soundHeader(off) {
			return off
		}
		off++
	}
	return -1
}

// mark returns the bytes with which every block of the file begins.
func (s *scanner) mark() []byte {
	if !s.salted {
		return []byte(blockMagic)
	}
	h := make([]byte, blockHeaderBytes)
	blockHeader{salt: s.salt}.put(h)
	return h[:8]
}
