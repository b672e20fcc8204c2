package block

import (
	lru "container/list"
	"encoding/binary"
	"sync"

	"github.com/prometheus/prometheus/storage"
)

// expandedBytes bounds the cache of expanded postings of a process.
const expandedBytes = 64 << 20

// postingsKey names what some matchers select of a block.
type postingsKey struct {
	block    blockKey
	matchers string
}

// postingsCache remembers which series matchers select, least recently used first out. A block
// never changes, so nothing has to be invalidated.
type postingsCache struct {
	most int

	mu    sync.Mutex // guards what follows
	bytes int
	byKey map[postingsKey]*lru.Element
	order *lru.List // of *expanded, newest first
}

type expanded struct {
	key postingsKey
	n   int
	// packed holds the differences of the references as varints: one or two bytes each, where the
	// references have eight.
	packed []byte
}

func newPostingsCache(most int) *postingsCache {
	return &postingsCache{most: most, byKey: map[postingsKey]*lru.Element{}, order: lru.New()}
}

func (e *expanded) size() int { return len(e.packed) + len(e.key.matchers) + 200 }

func (c *postingsCache) get(key postingsKey) ([]storage.SeriesRef, bool) {
	c.mu.Lock()
	el := c.byKey[key]
	if el == nil {
		c.mu.Unlock()
		return nil, false
	}
	c.order.MoveToFront(el)
	e := el.Value.(*expanded)
	c.mu.Unlock()
	refs := make([]storage.SeriesRef, 0, e.n)
	last := uint64(0)
	for b := e.packed; len(b) > 0; {
		d, n := binary.Uvarint(b)
		b = b[n:]
		last += d
		refs = append(refs, storage.SeriesRef(last))
	}
	return refs, true
}

func (c *postingsCache) put(key postingsKey, refs []storage.SeriesRef) {
	e := &expanded{key: key, n: len(refs), packed: make([]byte, 0, 2*len(refs))}
	last := uint64(0)
	for _, r := range refs {
		e.packed = binary.AppendUvarint(e.packed, uint64(r)-last)
		last = uint64(r)
	}
	if e.size() > c.most/4 {
		return // it would drive out too much
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return
	}
	c.byKey[key] = c.order.PushFront(e)
	for c.bytes += e.size(); c.bytes > c.most; {
		old := c.order.Remove(c.order.Back()).(*expanded)
		delete(c.byKey, old.key)
		c.bytes -= old.size()
	}
}
