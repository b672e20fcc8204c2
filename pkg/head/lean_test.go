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
