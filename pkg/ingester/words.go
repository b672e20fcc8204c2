package ingester

import (
	"sync"
	"sync/atomic"
)

// pageWords is the number of words of one page of a table: 512 bytes, so that a tenant with a
// handful of series costs little.
const pageWords = 64

type page [pageWords]atomic.Uint64

// words is an array of atomic words that grows as it is written. Reads take no lock. The zero
// value is empty.
type words struct {
	dir atomic.Pointer[[]atomic.Pointer[page]]
	mu  sync.Mutex // serialises growth
}

// load returns word i, 0 if it was never written.
func (w *words) load(i uint64) uint64 {
	dir := w.dir.Load()
	if dir == nil {
		return 0
	}
	at := i / pageWords
	if at >= uint64(len(*dir)) {
		return 0
	}
	p := (*dir)[at].Load()
	if p == nil {
		return 0
	}
	return p[i%pageWords].Load()
}

// word returns word i to write to, and makes room for it.
func (w *words) word(i uint64) *atomic.Uint64 {
	at := i / pageWords
	if dir := w.dir.Load(); dir != nil && at < uint64(len(*dir)) {
		if p := (*dir)[at].Load(); p != nil {
			return &p[i%pageWords]
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	dir := w.dir.Load()
	if dir == nil || at >= uint64(len(*dir)) {
		size := at + 1
		if dir != nil {
			size = max(size, 2*uint64(len(*dir)))
		}
		grown := make([]atomic.Pointer[page], size)
		if dir != nil {
			for j := range *dir {
				grown[j].Store((*dir)[j].Load())
			}
		}
		dir = &grown
		w.dir.Store(dir)
	}
	p := (*dir)[at].Load()
	if p == nil {
		p = new(page)
		(*dir)[at].Store(p)
	}
	return &p[i%pageWords]
}

// bits is a growing set of small numbers with the properties of words.
type bits struct{ w words }

func (b *bits) has(i uint64) bool { return b.w.load(i/64)&(1<<(i%64)) != 0 }
func (b *bits) set(i uint64)      { b.w.word(i / 64).Or(1 << (i % 64)) }
