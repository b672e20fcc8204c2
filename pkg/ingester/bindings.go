package ingester

import (
	"sync"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// maxRefIndex bounds the table of one stream and tenant: senders number densely, so an index
	// over it is no honest one, and a table of this size is 128 MiB.
	maxRefIndex = 1 << 24

	refBits = 48
	refMask = 1<<refBits - 1
)

// bindings maps the references of one stream and tenant to those of the tenant's head. They are
// good for that very head only. Reads take no lock.
type bindings struct {
	of    *tenantHead
	table words // generation in the high 16 bits, head.Ref below; 0: unbound
}

// lookup returns what ref is bound to, 0 if it is not.
func (b *bindings) lookup(ref frame.Ref) head.Ref {
	w := b.table.load(uint64(ref.Index()))
	if uint16(w>>refBits) != ref.Gen() {
		return 0
	}
	return head.Ref(w & refMask)
}

// bind names the series to by ref. A head numbers its series from 1, so that 48 bits are never
// used up.
func (b *bindings) bind(ref frame.Ref, to head.Ref) {
	b.table.word(uint64(ref.Index())).Store(uint64(ref.Gen())<<refBits | uint64(to)&refMask)
}

// stream is the receiving end of one distributor's pushes.
type stream struct {
	ing *Ingester

	mu      sync.RWMutex // guards tenants
	tenants map[string]*bindings
}

// OpenStream returns a stream without bindings.
func (i *Ingester) OpenStream() frame.Stream {
	s := &stream{ing: i, tenants: map[string]*bindings{}}
	i.streamsMu.Lock()
	defer i.streamsMu.Unlock()
	i.streams[s] = struct{}{}
	return s
}

// Close forgets the bindings.
func (s *stream) Close() {
	s.ing.streamsMu.Lock()
	delete(s.ing.streams, s)
	s.ing.streamsMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tenants)
}

// unbind makes all streams forget t, which is closed: a stream may live for months, and would keep
// the memory of every head it ever pushed to.
func (i *Ingester) unbind(t *tenantHead) {
	i.streamsMu.Lock()
	defer i.streamsMu.Unlock()
	for s := range i.streams {
		s.mu.Lock()
		if b := s.tenants[string(t.id)]; b != nil && b.of == t {
			delete(s.tenants, string(t.id))
		}
		s.mu.Unlock()
	}
}

// bindingsOf returns the stream's bindings for t; those made for another head of the tenant are
// forgotten.
func (s *stream) bindingsOf(t *tenantHead) *bindings {
	s.mu.RLock()
	b := s.tenants[string(t.id)]
	s.mu.RUnlock()
	if b != nil && b.of == t {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.tenants[string(t.id)]; b == nil || b.of != t {
		b = &bindings{of: t}
		s.tenants[string(t.id)] = b
	}
	return b
}
