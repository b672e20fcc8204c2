package pagecache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/cache"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// place is a bucket with one object, and a cache before it.
type place struct {
	*Cache
	items *failing
	data  []byte

	mu       sync.Mutex // guards requests
	requests [][2]int64
}

// failing is a cache whose server may be gone.
type failing struct {
	*cache.MockCache
	err   error
	asked int
}

func (f *failing) GetMultiWithError(ctx context.Context, keys []string, o ...cache.Option) (map[string][]byte, error) {
	f.asked++
	if f.err != nil {
		return nil, f.err
	}
	return f.MockCache.GetMultiWithError(ctx, keys, o...)
}

func newPlace(size int) *place {
	p := &place{items: &failing{MockCache: cache.NewMockCache()}, data: make([]byte, size)}
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p.data)
	p.Cache = New(p.items, "test", prometheus.NewRegistry())
	return p
}

func (p *place) fetch(_ context.Context, _ string, off, length int64) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, [2]int64{off, length})
	return io.NopCloser(bytes.NewReader(p.data[off : off+length])), nil
}

// read fails unless items from to to-1 read as they are, and returns how many requests it took.
func (p *place) read(t *testing.T, from, to int64) int {
	t.Helper()
	p.requests = nil
	off, end := from*itemBytes, min(to*itemBytes, int64(len(p.data)))
	r, err := p.Range(t.Context(), "t1/b/index", off, end-off, p.fetch)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, p.data[off:end]) {
		t.Fatalf("items %d to %d read as %d other bytes, %v", from, to, len(got), err)
	}
	return len(p.requests)
}

func TestWhatWasReadOnceIsNotFetchedAgain(t *testing.T) {
	p := newPlace(40*itemBytes + 1234)
	if n := p.read(t, 0, 41); n != 1 {
		t.Errorf("%d requests for a stretch that is not in the cache, want 1", n)
	}
	if n := p.read(t, 0, 41); n != 0 {
		t.Errorf("%d requests for what is in the cache", n)
	}
	for _, gone := range []int64{3, 4, 20, 40} {
		_ = p.items.Delete(t.Context(), key("t1/b/index", gone*itemBytes))
	}
	if n := p.read(t, 0, 41); n != 3 {
		t.Errorf("%d requests for three holes: %v", n, p.requests)
	}
	if n := p.read(t, 2, 30); n != 0 {
		t.Errorf("%d requests for a part", n)
	}
}

func TestDamagedItemsAndThoseOfOthersAreNotUsed(t *testing.T) {
	p := newPlace(6 * itemBytes)
	p.read(t, 0, 6)
	items := p.items.GetItems()
	broken := bytes.Clone(items[key("t1/b/index", 0)].Data)
	broken[1000]++
	p.items.SetAsync(key("t1/b/index", 0), broken, time.Hour)
	p.items.SetAsync(key("t1/b/index", itemBytes), items[key("t1/b/index", 2*itemBytes)].Data, time.Hour)
	p.items.SetAsync(key("t1/b/index", 3*itemBytes), []byte("x"), time.Hour)
	if n := p.read(t, 0, 6); n != 2 {
		t.Errorf("%d requests, want one for items 0 and 1, and one for item 3: %v", n, p.requests)
	}
	if n := testutil.ToFloat64(p.damaged); n != 3 {
		t.Errorf("%v damaged items counted, want 3", n)
	}
}

func TestACacheThatIsGoneIsLeftAloneForAWhile(t *testing.T) {
	p := newPlace(100 * itemBytes)
	now := time.Now()
	p.now = func() time.Time { return now }
	p.items.err = errors.New("connection refused")
	for range 5 {
		if n := p.read(t, 0, 100); n != 1 {
			t.Errorf("%d requests to the bucket, want 1", n)
		}
	}
	if p.items.asked != 1 {
		t.Errorf("asked %d times while it is gone, want once", p.items.asked)
	}
	p.items.err = nil
	now = now.Add(pause)
	p.read(t, 0, 100)
	if n := p.read(t, 0, 100); n != 0 {
		t.Errorf("%d requests although the cache is back", n)
	}
}

func TestSmallObjectsAreCached(t *testing.T) {
	p := newPlace(0)
	fetched := 0
	get := func(name string) string {
		b, err := p.Object(t.Context(), name, func() ([]byte, error) { fetched++; return []byte("meta of " + name), nil })
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for range 2 {
		for _, name := range []string{"a", "b"} {
			if got := get(name); got != "meta of "+name {
				t.Errorf("%s reads as %q", name, got)
			}
		}
	}
	if fetched != 2 {
		t.Errorf("fetched %d times, want 2", fetched)
	}
	p.items.SetAsync(key("a", 0), p.items.GetItems()[key("b", 0)].Data, time.Hour)
	if got := get("a"); !strings.HasSuffix(got, "a") {
		t.Errorf("a reads as %q", got)
	}
}

func TestAFailureOfTheBucketIsTold(t *testing.T) {
	p := newPlace(3 * itemBytes)
	gone := errors.New("gone")
	r, err := p.Range(t.Context(), "o", 0, 3*itemBytes, func(context.Context, string, int64, int64) (io.ReadCloser, error) { return nil, gone })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, gone) {
		t.Errorf("%v, want the error of the bucket", err)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add("k", []byte("abcdefg"), 3)
	f.Fuzz(func(t *testing.T, k string, item []byte, length int) {
		if data, ok := unseal(k, item, length); ok && !bytes.Equal(seal(k, data), item) {
			t.Error("what is no item of the key was taken for one")
		}
	})
}
