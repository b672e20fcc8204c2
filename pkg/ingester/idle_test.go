package ingester

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/memory"
)

// use is what a process holds.
type use struct {
	heap              int64
	goroutines, files int
}

func useNow(t *testing.T) use {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one finds in pools is garbage for the second
	runtime.ReadMemStats(&m)
	u := use{heap: int64(m.HeapAlloc), goroutines: runtime.NumGoroutine()}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(files)
	}
	return u
}

// forget deletes all objects of a bucket.
func forget(t *testing.T, b objstore.Bucket) {
	t.Helper()
	var names []string
	err := b.Iter(t.Context(), "", func(name string) error { names = append(names, name); return nil }, objstore.WithRecursiveIter())
	for _, name := range names {
		err = errors.Join(err, b.Delete(t.Context(), name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIdleTenantsHeldComesBack(t *testing.T) {
	const tenants, series = 100, 30
	l := memory.New(memory.Limits{Process: budgetBytes, Go: budgetBytes}, memory.Deps{})
	s := newSite(t, siteOptions{memory: l, change: func(c *Config) { c.BlockRetention = time.Hour }})
	busy := newSender(s.Ingester)
	push := func() {
		now, some := s.now.Load(), newSender(s.Ingester)
		defer some.stream.Close()
		for n := range tenants {
			var points []point
			for k := range series {
				points = append(points, point{metric("m", "instance", fmt.Sprint(k)), now, 1})
			}
			some.mustPush(t, fmt.Sprint("tenant-", n), points...)
		}
	}
	round := func() {
		s.now.Add(20 * minute)
		busy.mustPush(t, "busy", point{metric("m"), s.now.Load(), 1})
		s.keepHouse(t.Context())
	}
	round()
	empty := useNow(t)
	push()
	full := useNow(t)
	if n := s.numTenants(); n != tenants+1 {
		t.Fatalf("%d tenants", n)
	}
	for rounds := 0; s.numTenants() > 1; rounds++ {
		if rounds == 50 {
			t.Fatalf("%d tenants are open after %d rounds", s.numTenants(), rounds)
		}
		round()
	}
	forget(t, s.bucket) // it lies in the memory of the test
	after := useNow(t)
	t.Logf("empty %+v, with %d tenants %+v, after they were closed %+v", empty, tenants, full, after)
	if each := (after.heap - empty.heap) / tenants; each > 4000 { // also what grew once, for all tenants together
		t.Errorf("each closed tenant left %d bytes of %d", each, (full.heap-empty.heap)/tenants)
	}
	if after.goroutines > empty.goroutines+10 || after.files > empty.files+10 {
		t.Errorf("goroutines or files are left")
	}
	if n := l.Account(memory.Series).Held(); n > 2*headBytes {
		t.Errorf("%d bytes of series are reserved for one tenant", n)
	}
	if n := l.Account(memory.Chunks).Held(); n > 1000 {
		t.Errorf("%d bytes of chunks are reserved for one tenant", n)
	}
	if left, _ := os.ReadDir(s.tenantsDir()); len(left) != 1 {
		t.Errorf("%d directories of tenants are left", len(left))
	}
}
