package ingest

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

// inflight bounds the bytes of all bodies under way. It refuses instead of waiting: a queue of
// pushes would be memory too, and the sender has one already.
type inflight struct {
	most    int64
	used    prometheus.Gauge
	now     atomic.Int64
	process *memory.Account // of all that the process does
}

// share is the part of one request.
type share struct {
	m *inflight
	n int64
}

func (m *inflight) share() *share { return &share{m: m} }

// grow reserves n more bytes. Errors: Unavailable.
func (s *share) grow(n int) error {
	// The only request under way is let through even when it is larger than the bound, so that
	// an accepted size can always be pushed.
	if now := s.m.now.Add(int64(n)); now > s.m.most && now > s.n+int64(n) {
		s.m.now.Add(-int64(n))
		return errs.WithID(errs.Unavailable, "distributor-max-inflight-push-requests-bytes", "",
			"the push requests in memory reached %d bytes", s.m.most)
	}
	if err := s.m.process.Reserve(int64(n)); err != nil {
		s.m.now.Add(-int64(n))
		return err
	}
	s.n += int64(n)
	s.m.used.Add(float64(n))
	return nil
}

func (s *share) shrink(n int) {
	s.m.now.Add(-int64(n))
	s.m.process.Release(int64(n))
	s.n -= int64(n)
	s.m.used.Sub(float64(n))
}

func (s *share) release() { s.shrink(int(s.n)) }

const (
	minBufferBits = 12 // 4 KiB: a handful of samples
	maxBufferBits = 24 // 16 MiB: larger ones are rare and not worth keeping
)

// buffers holds used bodies by their size class, so that one large request does not make the
// small ones after it hold large memory.
type buffers struct {
	classes [maxBufferBits - minBufferBits + 1]sync.Pool
}

func newBuffers() *buffers { return new(buffers) }

// take returns an empty buffer for n bytes, rounded up to a size class but not above most.
func (b *buffers) take(n, most int) []byte {
	n = max(min(n, most), 1)
	class := max(bits.Len(uint(n-1)), minBufferBits)
	if class > maxBufferBits {
		return make([]byte, 0, n)
	}
	if p, ok := b.classes[class-minBufferBits].Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, 1<<class)
}

// give takes buf back; the caller must not use it any more.
func (b *buffers) give(buf []byte) {
	class := bits.Len(uint(cap(buf))) - 1
	if class < minBufferBits || class > maxBufferBits {
		return
	}
	buf = buf[:0]
	b.classes[class-minBufferBits].Put(&buf)
}
