package head

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// bytesOf is what each of many heads with one series takes on the heap.
func bytesOf(t *testing.T, shared *Shared) int64 {
	t.Helper()
	const heads = 100
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first one finds in pools is garbage for the second
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	put(t, open(t, Options{Shared: shared}), labels.FromStrings("__name__", "first"), 1000, 1)
	before := live()
	for i := range heads {
		put(t, open(t, Options{Shared: shared, OutOfOrderWindow: time.Minute}), labels.FromStrings("__name__", fmt.Sprint("m", i)), 1000, 1)
	}
	return (live() - before) / heads
}

// If this fails after an update of Prometheus, its parts have other names; see Shared.
func TestAHeadWithOneSeriesIsSmall(t *testing.T) {
	shared, err := NewShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	own, lean := bytesOf(t, nil), bytesOf(t, shared)
	t.Logf("%d bytes, %d without anything shared", lean, own)
	if lean > 35_000 || own-lean < 80_000 {
		t.Errorf("a head takes %d bytes, %d without anything shared", lean, own)
	}
}

func TestALeanHeadDoesAllThatAHeadDoes(t *testing.T) {
	shared, err := NewShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Shared{nil, shared} {
		h := open(t, Options{Shared: s, OutOfOrderWindow: time.Hour})
		for i := range 1000 {
			put(t, h, labels.FromStrings("__name__", "m", fmt.Sprint("label_", i), "v"), 3*hour+int64(i), float64(i))
		}
		put(t, h, labels.FromStrings("__name__", "m", "label_7", "v"), 3*hour, 7)
		if got := read(t, h); len(got) != 1000 || got[`{__name__="m", label_7="v"}`] != fmt.Sprintf("%d:7 %d:7", 3*hour, 3*hour+7) {
			t.Errorf("%d series read; the late one: %q", len(got), got[`{__name__="m", label_7="v"}`])
		}
		if _, err := h.Compact(context.Background(), true); err != nil || h.NumSeries() != 0 {
			t.Errorf("%d series left: %v", h.NumSeries(), err)
		}
		if got := read(t, h); len(got) != 1000 {
			t.Errorf("%d series read from blocks", len(got))
		}
	}
}

// What a batch of a few samples leaves behind in the pools of a head is small as well.
func TestAPushToASmallHeadLeavesLittleBehind(t *testing.T) {
	shared, err := NewShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const heads = 50
	garbage := func(s *Shared) uint64 {
		var all []*Head
		for range heads {
			h := open(t, Options{Shared: s})
			put(t, h, labels.FromStrings("__name__", "m"), 1000, 1)
			all = append(all, h)
		}
		runtime.GC()
		runtime.GC() // empties the pools
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, h := range all {
			put(t, h, labels.FromStrings("__name__", "m"), 2000, 1)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / heads
	}
	own, lean := garbage(nil), garbage(shared)
	t.Logf("%d bytes, %d without anything shared", lean, own)
	if lean > 15_000 || own < 5*lean {
		t.Errorf("a push allocates %d bytes, %d without anything shared", lean, own)
	}
}
