// Package paged owns sparse local copies of large immutable objects: only the pages that are asked
// for are fetched, in few and large requests, and they stay on local disk while there is room.
// Readers see a memory-mapped file. Everything here can be deleted at any time.
package paged

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// pageSize is the unit in which presence is known. It is a multiple of the page size of every
	// kernel, so that a missing page has no byte on a disk.
	pageSize = 64 << 10

	// gapPages is how many pages nobody asked for are fetched along to save a request: at 512 KiB
	// the transfer costs about what the round trip does.
	gapPages = 8

	// runPages is the most that one request fetches. Longer stretches become several requests,
	// which run side by side.
	runPages = 128

	// fetchConcurrency is how many requests of all readers are under way at the same time.
	fetchConcurrency = 64
)

// Fetch reads length bytes of the object name from off on. The caller closes the reader.
type Fetch func(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)

// Options of a Cache.
type Options struct {
	Dir      string // owned by the cache
	MaxBytes int64  // of pages on disk
	Fetch    Fetch
	Logger   *slog.Logger          // nil: none
	Reg      prometheus.Registerer // nil: metrics are not exposed
}

// Cache is safe for concurrent use.
type Cache struct {
	o       Options
	metrics *metrics
	slots   chan struct{}
	pins    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	files  map[string]*entry
	unused *list.List // of *entry without users, the one used longest ago first
	bytes  int64
}

// entry is what is known of one object.
type entry struct {
	name string
	path string
	size int64
	disk *pages // what is on the disk

	// Guarded by Cache.mu.
	users int
	place *list.Element // in unused
	bytes int64
}

// New opens a cache in o.Dir and takes over what was noted there; the rest is deleted.
func New(o Options) (*Cache, error) {
	if o.Dir == "" || o.MaxBytes <= 0 || o.Fetch == nil {
		return nil, errs.New(errs.Invalid, "a cache of pages needs a directory, a size and a source")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		o: o, metrics: newMetrics(o.Reg), slots: make(chan struct{}, fetchConcurrency),
		files: map[string]*entry{}, unused: list.New(),
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("prepare the cache: %w", err)
	}
	if err := c.takeOver(); err != nil {
		return nil, fmt.Errorf("prepare the cache: %w", err)
	}
	c.metrics.bytes.Set(float64(c.bytes))
	return c, nil
}

// Open returns the object name, which has size bytes. Nothing is fetched yet. The caller closes the
// file. Errors: Unavailable.
func (c *Cache) Open(name string, size int64) (*File, error) {
	if size <= 0 {
		return nil, errs.New(errs.Internal, "%s is corrupted: it has %d bytes", name, size)
	}
	e, err := c.use(name, size)
	if err != nil {
		return nil, err
	}
	if err := e.disk.open(e.path, size); err != nil {
		c.release(e)
		return nil, errs.New(errs.Unavailable, "open the local copy of %s: %w", name, err)
	}
	return &File{cache: c, entry: e}, nil
}

// use takes a hold on the entry of name.
func (c *Cache) use(name string, size int64) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errs.New(errs.Unavailable, "the cache of blocks is closed")
	}
	e := c.files[name]
	if e != nil && e.size != size {
		return nil, errs.New(errs.Internal, "%s has %d bytes, it had %d before", name, size, e.size)
	}
	if e == nil {
		e = &entry{name: name, path: filepath.Join(c.o.Dir, fileOf(name)), size: size, disk: newPages(size)}
		c.files[name] = e
	}
	if e.place != nil {
		c.unused.Remove(e.place)
		e.place = nil
	}
	e.users++
	c.pins.Add(1)
	return e, nil
}

// release gives up a hold; the local copy stays.
func (c *Cache) release(e *entry) {
	c.mu.Lock()
	e.users--
	if e.users == 0 && c.files[e.name] == e {
		e.place = c.unused.PushBack(e)
	}
	c.mu.Unlock()
	c.pins.Done()
}

// reserve makes room for n more bytes of e. Errors: TooLarge if files in use fill the cache.
func (c *Cache) reserve(e *entry, n int64) error {
	c.mu.Lock()
	var victims []*entry
	for c.bytes+n > c.o.MaxBytes {
		first := c.unused.Front()
		if first == nil {
			break
		}
		victims = append(victims, c.forget(first.Value.(*entry)))
	}
	fits := c.bytes+n <= c.o.MaxBytes
	if fits {
		c.bytes += n
		e.bytes += n
	}
	c.metrics.bytes.Set(float64(c.bytes))
	// A victim's files go before anybody can open the same name again.
	err := c.remove(victims)
	c.mu.Unlock()
	if err != nil {
		c.o.Logger.Warn("local copies not dropped, they fill the disk", "err", err)
	}
	if !fits {
		return errs.New(errs.TooLarge, "the blocks that running queries read fill the local cache of %d bytes; ask for less, or raise -blocks-storage.bucket-store.max-cache-bytes", c.o.MaxBytes)
	}
	return nil
}

// unreserve takes back what was reserved for pages that did not come.
func (c *Cache) unreserve(e *entry, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= n
	e.bytes -= n
	c.metrics.bytes.Set(float64(c.bytes))
}

// forget takes an unused entry out of the books; c.mu must be held.
func (c *Cache) forget(e *entry) *entry {
	c.unused.Remove(e.place)
	e.place = nil
	delete(c.files, e.name)
	c.bytes -= e.bytes
	c.metrics.drops.Inc()
	return e
}

func (c *Cache) remove(victims []*entry) error {
	var out []error
	for _, v := range victims {
		out = append(out, v.disk.shut(), removeFiles(v.path))
	}
	return errors.Join(out...)
}

// Drop deletes the local copies of the objects for which gone says so, unless they are in use.
func (c *Cache) Drop(gone func(name string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var victims []*entry
	for name, e := range c.files {
		if e.users == 0 && gone(name) {
			victims = append(victims, c.forget(e))
		}
	}
	c.metrics.bytes.Set(float64(c.bytes))
	return c.remove(victims)
}

// Close waits for the files in use to be closed, and notes what is on the disk for the next start.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.pins.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []error
	for _, e := range c.files {
		out = append(out, e.disk.note(e), e.disk.shut())
	}
	return errors.Join(out...)
}

// Note writes down what is on the disk, so that it is found again should the process be killed.
func (c *Cache) Note() error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.files))
	c.mu.Unlock()
	var out []error
	for _, e := range all {
		c.mu.Lock() // its files do not go meanwhile
		if c.files[e.name] == e && !c.closed {
			out = append(out, e.disk.note(e))
		}
		c.mu.Unlock()
	}
	return errors.Join(out...)
}

// Bytes is how much lies on the local disk.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// Names calls f with the name of every object of which something is on the local disk.
func (c *Cache) Names(f func(name string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.files {
		f(name)
	}
}
