package head

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/tsdb"
)

// firstExemplars is the room of a head that got its first exemplar.
const firstExemplars = 256

// exemplarRoom is the ring of exemplars of a head. The TSDB allocates the whole of it at once, 64
// bytes a place: for 100,000 places and a thousand tenants that is 6 GB of heap that nobody uses,
// and that the garbage collector takes for live. So it is made when the first exemplar comes, and
// grows until it has the size that the limits grant.
type exemplarRoom struct {
	mu    sync.Mutex // guards what follows
	most  int64      // places granted
	size  int64      // places made
	taken int64      // exemplars that came, until all granted places are made
}

// begin sets what a head is opened with and returns the places to make at once: those for the
// exemplars of the snapshot it starts from.
func (r *exemplarRoom) begin(o *Options) int64 {
	r.most, r.size, r.taken = int64(o.MaxExemplars), 0, 0
	if o.Snapshot != nil {
		r.size = max(0, min(int64(o.Snapshot.Exemplars), r.most))
		r.taken = r.size
	}
	return r.size
}

// granted is how many exemplars may be kept.
func (r *exemplarRoom) granted() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

// setLimits changes what is granted; the room shrinks at once and grows with need.
func (r *exemplarRoom) setLimits(h *Head, window time.Duration, most int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most, r.size = most, min(r.size, most)
	r.taken = min(r.taken, r.size)
	return h.db.ApplyConfig(&config.Config{StorageConfig: config.StorageConfig{
		TSDBConfig:      &config.TSDBConfig{OutOfOrderTimeWindow: window.Milliseconds()},
		ExemplarsConfig: &config.ExemplarsConfig{MaxExemplars: r.size},
	}})
}

// makeFor makes room for one more exemplar, if more is granted.
func (r *exemplarRoom) makeFor(h *Head) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size >= r.most {
		return nil
	}
	if r.taken++; r.taken <= r.size {
		return nil
	}
	size := min(r.most, max(firstExemplars, 4*r.size))
	if err := h.resizeExemplars(size); err != nil {
		return err
	}
	r.size = size
	return nil
}

// resizeExemplars does what the TSDB's ApplyConfig does for exemplars, and that alone: the rest of it
// must not run beside appends.
func (h *Head) resizeExemplars(size int64) error {
	q, err := h.db.ExemplarQuerier(context.Background())
	if err != nil {
		return err
	}
	opts, found := part(h.db.Head(), "opts").Interface().(*tsdb.HeadOptions)
	ring, isRing := q.(*tsdb.CircularExemplarStorage)
	if !found || !isRing {
		panic("BUG: the TSDB keeps exemplars in another way")
	}
	ring.Resize(size)
	opts.MaxExemplars.Store(size)
	return nil
}
