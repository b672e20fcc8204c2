package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// loadConcurrency is how many blocks are copied at the same time: enough to fill a link,
	// few enough that the first of a query's blocks are not all late.
	loadConcurrency = 4

	// loadTimeout ends the copying of one block. It goes on without its query, which may have
	// had a shorter deadline, so that the next one finds it.
	loadTimeout = 15 * time.Minute
)

var errClosed = errs.New(errs.Unavailable, "block reader is closed")

type blockKey struct {
	tenant tenant.ID
	block  ulid.ULID
}

// copied is a local copy of a block, or one in the making.
type copied struct {
	key    blockKey
	meta   Meta
	loaded chan struct{} // closed when block or err is set

	// Set before loaded is closed.
	block *tsdb.Block
	err   error

	// Guarded by cache.mu.
	dir   string
	bytes int64
	pins  int
	used  uint64 // the cache's clock at the last release
}

// cache keeps local copies below maxBytes, dropping the one that was used longest ago.
type cache struct {
	deps     Deps
	metrics  *metrics
	dir      string
	maxBytes int64
	life     context.Context // of the loads, which outlive the queries that start them
	stop     context.CancelCauseFunc
	slots    chan struct{}
	loads    sync.WaitGroup
	pins     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	copies map[blockKey]*copied
	bytes  int64
	clock  uint64
	seq    uint64
}

// open pins the blocks of metas that overlap the range. Errors: NotFound if one is gone.
func (c *cache) open(ctx context.Context, id tenant.ID, metas map[ulid.ULID]Meta, mint, maxt int64) (*Snapshot, error) {
	s := &Snapshot{cache: c, mint: mint, maxt: maxt}
	for _, m := range overlapping(metas, mint, maxt) {
		p, err := c.pin(blockKey{id, m.ULID}, m)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.pinned = append(s.pinned, p)
	}
	for _, p := range s.pinned {
		select {
		case <-p.loaded:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), s.Close())
		}
		if p.err != nil {
			return nil, errors.Join(fmt.Errorf("load block %s of tenant %s: %w", p.key.block, id, p.err), s.Close())
		}
	}
	return s, nil
}

// pin returns the copy of a block and starts to make it if need be. The caller waits for loaded
// and releases it.
func (c *cache) pin(key blockKey, m Meta) (*copied, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	p := c.copies[key]
	if p == nil {
		p = &copied{key: key, meta: m, loaded: make(chan struct{}), pins: 1} // the load's own pin
		c.pins.Add(1)
		c.copies[key] = p
		c.loads.Go(func() { c.load(p) })
	}
	p.pins++
	c.pins.Add(1)
	return p, nil
}

func (c *cache) release(p *copied) {
	c.mu.Lock()
	p.pins--
	c.clock++
	p.used = c.clock
	c.mu.Unlock()
	c.pins.Done()
}

func (c *cache) load(p *copied) {
	defer close(p.loaded)
	// The load lets go before anyone sees the copy: whoever is done with it finds it unpinned.
	defer c.release(p)
	if p.err = c.fetch(p); p.err == nil {
		c.metrics.loads.Inc()
		c.metrics.blocks.Inc()
		return
	}
	c.metrics.loadFailures.Inc()
	c.mu.Lock()
	delete(c.copies, p.key) // the next query tries again
	c.bytes -= p.bytes
	c.metrics.bytes.Set(float64(c.bytes))
	c.mu.Unlock()
	if p.dir != "" {
		p.err = errors.Join(p.err, os.RemoveAll(p.dir))
	}
}

// fetch copies and opens a block.
func (c *cache) fetch(p *copied) error {
	ctx, cancel := context.WithTimeout(c.life, loadTimeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	bkt := objstore.NewPrefixedBucket(c.deps.Bucket, string(p.key.tenant)+"/"+p.key.block.String())
	files, err := filesOf(ctx, bkt, p.meta)
	if err != nil {
		return err
	}
	size := int64(0)
	for _, f := range files {
		size += f.SizeBytes
	}
	dir, err := c.reserve(p, size)
	if err != nil {
		return err
	}
	if err := download(ctx, bkt, p.meta, files, dir); err != nil {
		return err
	}
	b, err := tsdb.OpenBlock(c.deps.Logger, dir, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		return errs.New(errs.Internal, "its copy is corrupted: %w", err)
	}
	p.block = b
	return nil
}

// reserve makes room for size bytes and returns a new directory for them: a name is never used
// twice, so dropping an old copy of the same block cannot touch the new one.
func (c *cache) reserve(p *copied, size int64) (string, error) {
	c.mu.Lock()
	var victims []*copied
	for c.bytes+size > c.maxBytes {
		v := c.longestUnused()
		if v == nil {
			break
		}
		delete(c.copies, v.key)
		c.bytes -= v.bytes
		victims = append(victims, v)
	}
	fits := c.bytes+size <= c.maxBytes
	if fits {
		c.bytes += size
		c.seq++
		p.bytes, p.dir = size, filepath.Join(c.dir, string(p.key.tenant), p.key.block.String()+"-"+strconv.FormatUint(c.seq, 10))
	}
	c.metrics.bytes.Set(float64(c.bytes))
	dir := p.dir
	c.mu.Unlock()

	var err error
	for _, v := range victims {
		c.metrics.drops.Inc()
		err = errors.Join(err, c.drop(v))
	}
	if err != nil {
		c.deps.Logger.Warn("local copies of blocks not dropped, they fill the disk", "err", err)
	}
	if !fits {
		return "", errs.New(errs.TooLarge, "it has %d bytes, and the blocks of running queries fill the cache of %d bytes", size, c.maxBytes)
	}
	return dir, nil
}

// longestUnused returns the unpinned copy whose last use is the longest ago. It looks at all of
// them, which are at most some thousands, and only when a block was downloaded.
func (c *cache) longestUnused() *copied {
	var v *copied
	for _, p := range c.copies {
		if p.pins == 0 && (v == nil || p.used < v.used) {
			v = p
		}
	}
	return v
}

func (c *cache) drop(p *copied) error {
	c.metrics.blocks.Dec()
	return errors.Join(p.block.Close(), os.RemoveAll(p.dir))
}

func (c *cache) close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.stop(errClosed)
	c.loads.Wait()
	c.pins.Wait()
	var err error
	for _, p := range c.copies {
		err = errors.Join(err, c.drop(p))
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
