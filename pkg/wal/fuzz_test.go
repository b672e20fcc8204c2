package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
)

// seedSegment is a segment of three blocks.
func seedSegment() []byte {
	h := fileHeader{kind: kindSegment, number: 1, firstSeq: 7, salt: 0x01020304}
	b := h.encode()
	for i := range uint64(3) {
		raw := appendRecord(nil, bytes.Repeat([]byte{'a' + byte(i)}, 60))
		raw = appendRecord(raw, []byte("tail"))
		b = appendBlock(b, raw, blockHeader{salt: h.salt, seq: 7 + i})
	}
	return b
}

// FuzzReadBlocks feeds foreign bytes to the reader of segments and checkpoints: it must end, must
// account for every byte once, and must not invent blocks whose checksums do not hold.
func FuzzReadBlocks(f *testing.F) {
	whole := seedSegment()
	f.Add(whole)
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Add(whole[:len(whole)-5])
	f.Add(append(slices.Clone(whole[:40]), whole...))
	f.Add(appendBlock(nil, []byte("no header"), blockHeader{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newScanner(bytes.NewReader(data), int64(len(data)))
		pos := min(int64(fileHeaderBytes), int64(len(data)))
		for {
			b, g, err := s.next()
			if g != nil {
				if g.off != pos || g.bytes <= 0 || g.cause == nil {
					t.Fatalf("gap %+v at %d", g, pos)
				}
				pos += g.bytes
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || b.off != pos || checksum(b.payload) != b.payloadSum {
				t.Fatalf("block at %d, want %d, err %v", b.off, pos, err)
			}
			pos += blockHeaderBytes + int64(b.stored)
			if raw, err := decodeBlock(nil, b.blockHeader, b.payload); err == nil {
				if len(raw) > maxRawBytes {
					t.Fatalf("%d bytes decoded", len(raw))
				}
				for len(raw) > 0 && err == nil {
					_, raw, err = cutRecord(raw)
				}
			}
		}
		if pos != int64(len(data)) {
			t.Fatalf("%d of %d bytes accounted for", pos, len(data))
		}
	})
}

// FuzzDecodeBlock feeds foreign payloads past the checksums.
func FuzzDecodeBlock(f *testing.F) {
	b := appendBlock(nil, bytes.Repeat([]byte("abc"), 100), blockHeader{})
	f.Add(b[blockHeaderBytes:], 300, codecS2)
	f.Add([]byte("\xff\xff\xff\xff\x0f"), maxRawBytes, codecS2)
	f.Add([]byte("plain"), 5, codecNone)
	f.Fuzz(func(t *testing.T, payload []byte, declared int, codec byte) {
		if declared < 0 || declared > maxRawBytes {
			return // the header is refused before
		}
		raw, err := decodeBlock(nil, blockHeader{raw: declared, codec: codec}, payload)
		if err == nil && len(raw) != declared {
			t.Fatalf("%d bytes decoded, %d declared", len(raw), declared)
		}
	})
}

// FuzzReplayOfAnySegment puts foreign bytes between two sound segments: replay must succeed, and
// deliver what is around them.
func FuzzReplayOfAnySegment(f *testing.F) {
	f.Add(seedSegment())
	f.Add([]byte("AMPHWAL"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newMemDisk()
		segment := func(n int, seq uint64, rec string) {
			h := fileHeader{kind: kindSegment, number: n, firstSeq: seq, salt: uint32(n)}
			b := appendBlock(h.encode(), appendRecord(nil, []byte(rec)), blockHeader{salt: h.salt, seq: seq})
			d.files[segmentName(n)] = &memFile{disk: d, name: segmentName(n), data: b}
		}
		segment(0, 0, "first")
		segment(2, 20, "last")
		d.files[segmentName(1)] = &memFile{disk: d, name: segmentName(1), data: data}
		r := openOn(t, d, dir, true)
		var got []string
		if _, err := r.Replay(context.Background(), func(_ int, rec []byte) error {
			got = append(got, string(rec))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got[0] != "first" || got[len(got)-1] != "last" {
			t.Fatalf("replayed %q", got)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
