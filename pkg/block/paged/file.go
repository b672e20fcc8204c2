package paged

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	fetchTries   = 5
	fetchBackoff = 100 * time.Millisecond
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pages is which pages of a file are on the disk, and the file.
type pages struct {
	size int64
	have []atomic.Uint64 // a bit for each page that is there and was checked

	mu      sync.Mutex // guards what follows
	sums    []uint32   // checksums of pages that are there; 0: not there
	changed bool       // since the sums were noted
	loading map[int]*load
	users   int
	file    *os.File
	mapped  *fileutil.MmapFile
}

// load is a request under way.
type load struct {
	done chan struct{}
	err  error // set before done is closed
}

func newPages(size int64) *pages {
	n := int((size + pageSize - 1) / pageSize)
	return &pages{size: size, have: make([]atomic.Uint64, (n+63)/64), sums: make([]uint32, n), loading: map[int]*load{}}
}

// open maps the file, which shut unmaps when the last user is done.
func (p *pages) open(path string, size int64) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mapped != nil {
		p.users++
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return errors.Join(err, f.Close())
	}
	m, err := fileutil.OpenMmapFileWithSize(path, int(size))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.file, p.mapped, p.users = f, m, 1
	return nil
}

// leave gives up one use of the mapping.
func (p *pages) leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	if p.users > 0 {
		return nil
	}
	return p.unmap()
}

// shut unmaps the file whoever uses it; nobody may.
func (p *pages) shut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unmap()
}

func (p *pages) unmap() error {
	if p.mapped == nil {
		return nil
	}
	err := errors.Join(p.mapped.Close(), p.file.Close())
	p.mapped, p.file, p.users = nil, nil, 0
	return err
}

// has says whether page n can be read.
func (p *pages) has(n int) bool { return p.have[n/64].Load()&(1<<(n%64)) != 0 }

func (p *pages) set(n int) {
	p.have[n/64].Or(1 << (n % 64))
}

// length is how many bytes of the object page n holds.
func (p *pages) length(n int) int64 { return min(pageSize, p.size-int64(n)*pageSize) }

// File is an object in use. Its bytes may be read until Close.
type File struct {
	cache *Cache
	entry *entry
	once  sync.Once
}

// Range is a stretch of an object, From <= offset < To.
type Range struct{ From, To int64 }

// Traffic is what a load cost.
type Traffic struct {
	Requests     int
	FetchedBytes int64
	CachedBytes  int64 // that were asked for and on the local disk
}

// Add sums up.
func (t *Traffic) Add(o Traffic) {
	t.Requests += o.Requests
	t.FetchedBytes += o.FetchedBytes
	t.CachedBytes += o.CachedBytes
}

// Len is the size of the object.
func (f *File) Len() int { return int(f.entry.size) }

// Bytes returns a stretch that was loaded; the slice must not be changed or used after Close.
func (f *File) Bytes(from, to int) []byte { return f.entry.disk.mapped.Bytes()[from:to:to] }

// Present says whether a stretch can be read without a Load.
func (f *File) Present(from, to int) bool {
	for n := from / pageSize; n*pageSize < to; n++ {
		if !f.entry.disk.has(n) {
			return false
		}
	}
	return true
}

// Here says whether stretches of the object can be read without a Load.
func (f *File) Here(ranges []Range) bool {
	for _, r := range ranges {
		if r.From >= 0 && r.To <= f.entry.size && !f.Present(int(r.From), int(r.To)) {
			return false
		}
	}
	return true
}

// Close gives the object up.
func (f *File) Close() error {
	var err error
	f.once.Do(func() {
		err = f.entry.disk.leave()
		f.cache.release(f.entry)
	})
	return err
}

// Load makes stretches readable. Errors: Unavailable, TooLarge, Internal for an object that is
// shorter than it should be, NotFound, and those of ctx.
func (f *File) Load(ctx context.Context, ranges ...Range) (Traffic, error) {
	p := f.entry.disk
	var t Traffic
	missing := map[int]struct{}{}
	for _, r := range ranges {
		if r.From < 0 || r.To > p.size || r.From > r.To {
			return t, errs.New(errs.Internal, "%s is corrupted: bytes %d to %d of %d are referred to", f.entry.name, r.From, r.To, p.size)
		}
		for n := int(r.From / pageSize); int64(n)*pageSize < r.To; n++ {
			if !p.has(n) {
				missing[n] = struct{}{}
			}
		}
		t.CachedBytes += r.To - r.From
	}
	if len(missing) == 0 {
		f.cache.metrics.hits.Add(float64(t.CachedBytes))
		return t, nil
	}
	wanted := make([]int, 0, len(missing))
	for n := range missing {
		wanted = append(wanted, n)
	}
	slices.Sort(wanted)
	var fetched, requests atomic.Int64
	g, gctx := errs.Together(ctx)
	waits := f.claim(wanted, func(from, to int, l *load) {
		g.Go(func() error {
			n, err := f.fetch(gctx, from, to, l)
			fetched.Add(n)
			requests.Add(1)
			return err
		})
	})
	err := g.Wait()
	t.Requests, t.FetchedBytes = int(requests.Load()), fetched.Load()
	t.CachedBytes = max(t.CachedBytes-t.FetchedBytes, 0)
	f.cache.metrics.hits.Add(float64(t.CachedBytes))
	if err != nil {
		return t, err
	}
	again := false
	for _, l := range waits {
		select {
		case <-l.done:
			again = again || l.err != nil // another's request, perhaps ended by its context
		case <-ctx.Done():
			return t, context.Cause(ctx)
		}
	}
	if again {
		more, err := f.Load(ctx, ranges...)
		t.Add(Traffic{Requests: more.Requests, FetchedBytes: more.FetchedBytes})
		return t, err
	}
	return t, nil
}

// claim divides the wanted pages, sorted, into requests, calls start for each, and returns the
// requests of others that bring the rest. Pages that an earlier process left are checked here.
func (f *File) claim(wanted []int, start func(from, to int, l *load)) (waits []*load) {
	p := f.entry.disk
	lost := int64(0)
	defer func() { f.cache.unreserve(f.entry, lost) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to := -1, -1
	flush := func() {
		if from < 0 {
			return
		}
		l := &load{done: make(chan struct{})}
		for n := from; n < to; n++ {
			if p.loading[n] == nil && !p.has(n) {
				p.loading[n] = l
			}
		}
		start(from, to, l)
		from = -1
	}
	for _, n := range wanted {
		if p.has(n) {
			continue
		}
		if known := p.sums[n] != 0; known && p.recall(n, f) {
			continue
		} else if known {
			lost += p.length(n)
		}
		if l := p.loading[n]; l != nil {
			if !slices.Contains(waits, l) {
				waits = append(waits, l)
			}
			continue
		}
		if from >= 0 && (n-to > gapPages || n+1-from > runPages) {
			flush()
		}
		if from < 0 {
			from = n
		}
		to = n + 1
	}
	flush()
	return waits
}

// recall checks a page that an earlier process left; false if it has to be fetched. It needs p.mu.
func (p *pages) recall(n int, f *File) bool {
	off := int64(n) * pageSize
	if sum(f.Bytes(int(off), int(off+p.length(n)))) != p.sums[n] {
		p.sums[n], p.changed = 0, true
		f.cache.metrics.damaged.Inc()
		return false
	}
	p.set(n)
	return true
}

// sum is never 0, which stands for a page that is not there.
func sum(b []byte) uint32 { return max(crc32.Checksum(b, castagnoli), 1) }

// fetch brings the pages from to to-1 that l has claimed.
func (f *File) fetch(ctx context.Context, from, to int, l *load) (n int64, err error) {
	p, c := f.entry.disk, f.cache
	defer func() {
		p.mu.Lock()
		for i := from; i < to; i++ {
			if p.loading[i] == l {
				delete(p.loading, i)
			}
		}
		l.err = err
		p.mu.Unlock()
		close(l.done)
	}()
	defer errs.Caught(&err) // others that wait for these pages are told
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	for try := 1; ; try++ {
		var got int64
		c.metrics.requests.Inc()
		got, err = f.read(ctx, from, to, l)
		n += got
		c.metrics.fetched.Add(float64(got))
		if err == nil || ctx.Err() != nil || try == fetchTries || errs.KindOf(err) != errs.Unavailable {
			break
		}
		select {
		case <-time.After(fetchBackoff << try):
		case <-ctx.Done():
		}
	}
	if err != nil {
		c.metrics.failures.Inc()
	}
	return n, err
}

// read makes one request. Pages that came before an error stay.
func (f *File) read(ctx context.Context, from, to int, l *load) (n int64, err error) {
	p := f.entry.disk
	for from < to && p.has(from) {
		from++ // came in an earlier try
	}
	if from == to {
		return 0, nil
	}
	off, end := int64(from)*pageSize, min(int64(to)*pageSize, p.size)
	r, err := f.cache.o.Fetch(ctx, f.entry.name, off, end-off)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	buf := make([]byte, pageSize)
	for i := from; i < to; i++ {
		b := buf[:p.length(i)]
		if _, err := io.ReadFull(r, b); err != nil {
			if ctx.Err() != nil {
				return n, context.Cause(ctx)
			}
			kind := errs.Unavailable
			if k := errs.KindOf(err); k == errs.NotFound || k == errs.RateLimited {
				kind = k
			}
			return n, errs.New(kind, "read %s from byte %d on: %w", f.entry.name, int64(i)*pageSize, err)
		}
		n += int64(len(b))
		if err := f.keep(i, b, l); err != nil {
			return n, err
		}
	}
	return n, nil
}

// keep writes a page, unless it is there or on its way in another request.
func (f *File) keep(i int, b []byte, l *load) error {
	p := f.entry.disk
	p.mu.Lock()
	mine := p.loading[i] == l && !p.has(i)
	p.mu.Unlock()
	if !mine {
		return nil
	}
	if err := f.cache.reserve(f.entry, int64(len(b))); err != nil {
		return err
	}
	if _, err := p.file.WriteAt(b, int64(i)*pageSize); err != nil {
		f.cache.unreserve(f.entry, int64(len(b)))
		return errs.New(errs.Unavailable, "write the local copy of %s: %w", f.entry.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sums[i], p.changed = sum(b), true
	p.set(i)
	return nil
}

// String names the object.
func (f *File) String() string { return fmt.Sprintf("%s (%d bytes)", f.entry.name, f.entry.size) }
