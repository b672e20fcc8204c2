package wal

import (
	"context"
	"io"
	"os"
)

// aheadBlocks is how many decoded blocks wait for the replay at most.
const aheadBlocks = 4

// item is what a reader found: the header of the file, a block, damage before a block or at the
// end, or an error that ends the reading.
type item struct {
	opened     bool
	header     fileHeader
	headerErr  error
	gap        *gap
	unreadable bool // the disk refused to show some of gap
	block      blockHeader
	off        int64
	raw        []byte // nil: no block
	err        error
}

// ahead reads and decodes the blocks of one file in a goroutine of its own, so that the next block
// is ready when the replay has dealt with the last.
type ahead struct {
	items chan item
	free  chan []byte
}

// readAhead starts reading. The caller consumes items to the end, or cancels ctx and drains.
func (l *Log) readAhead(ctx context.Context, name string, size int64) *ahead {
	a := &ahead{items: make(chan item, aheadBlocks), free: make(chan []byte, aheadBlocks+2)}
	go func() {
		defer close(a.items)
		f, err := l.tune.disk.Open(l.path(name), os.O_RDONLY)
		if err != nil {
			a.send(ctx, item{err: err})
			return
		}
		a.read(ctx, f, size)
		if err := f.Close(); err != nil {
			a.send(ctx, item{err: err})
		}
	}()
	return a
}

func (a *ahead) send(ctx context.Context, it item) bool {
	select {
	case a.items <- it:
		return true
	case <-ctx.Done():
		return false
	}
}

// read sends what the file holds. Damage is no error.
func (a *ahead) read(ctx context.Context, f io.ReaderAt, size int64) {
	s := newScanner(f, size)
	if !a.send(ctx, item{opened: true, header: s.header, headerErr: s.headerErr}) {
		return
	}
	var held *gap // damage that ends where the next good block begins
	for {
		b, g, err := s.next()
		held = held.join(g)
		it := item{gap: held, unreadable: s.unreadable(), block: b.blockHeader, off: b.off}
		if err == nil {
			if it.raw, err = decodeBlock(a.buffer(), b.blockHeader, b.payload); err != nil {
				held = held.join(&gap{b.off, blockHeaderBytes + int64(b.stored), err})
				continue
			}
		}
		if !a.send(ctx, it) || it.raw == nil {
			return
		}
		held = nil
	}
}

// join returns the damage that covers g and the damage behind it.
func (g *gap) join(next *gap) *gap {
	switch {
	case g == nil:
		return next
	case next == nil:
		return g
	}
	return &gap{g.off, next.off + next.bytes - g.off, g.cause}
}

func (a *ahead) buffer() []byte {
	select {
	case b := <-a.free:
		return b
	default:
		return make([]byte, 0, windowBytes)
	}
}

// recycle takes the bytes of an item back.
func (a *ahead) recycle(b []byte) {
	select {
	case a.free <- b[:0]:
	default:
	}
}

// drain waits for the reader to end.
func (a *ahead) drain() {
	for range a.items {
	}
}
