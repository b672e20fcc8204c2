package head

import (
	"math"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
)

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func keptExemplars(t *testing.T, h *Head) int {
	t.Helper()
	q, err := h.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range got {
		n += len(s.Exemplars)
	}
	return n
}

func TestExemplarsTakeRoomWhenTheyCome(t *testing.T) {
	const granted = 5000
	before := heapBytes()
	large := open(t, Options{MaxExemplars: 10_000_000})
	if grown := int64(heapBytes()) - int64(before); grown > 64<<20 {
		t.Errorf("a head that may keep 10,000,000 exemplars takes %d bytes before the first", grown)
	}
	runtime.KeepAlive(large)

	h := open(t, Options{OutOfOrderWindow: time.Minute, MaxExemplars: granted})
	ref := put(t, h, labels.FromStrings("__name__", "m"), 1000, 1)
	add := func(from, to int) {
		t.Helper()
		for at := from; at < to; at += 100 {
			a := h.Appender()
			for i := at; i < min(at+100, to); i++ {
				e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", strconv.Itoa(i)), Value: float64(i), Ts: int64(i), HasTs: true}
				if err := a.AppendExemplar(ref, e); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(0, 3000)
	if n := keptExemplars(t, h); n != 3000 {
		t.Fatalf("%d exemplars kept of 3000", n)
	}
	add(3000, 8000)
	if n := keptExemplars(t, h); n != granted {
		t.Fatalf("%d exemplars kept, want the newest %d", n, granted)
	}
	for _, most := range []int{700, 0, 900} {
		if err := h.SetLimits(time.Minute, most); err != nil {
			t.Fatal(err)
		}
		if n := keptExemplars(t, h); n > most {
			t.Errorf("%d exemplars kept, the limit is %d", n, most)
		}
	}
	add(8000, 10_000)
	if n := keptExemplars(t, h); n != 900 {
		t.Errorf("%d exemplars kept, want the newest 900", n)
	}
}

// A head that begins with a snapshot has all its exemplars, and goes on to grow to what is granted.
func TestExemplarsOfASnapshotAreAllThereAndMakeRoomForMore(t *testing.T) {
	const granted, before, after = 1000, 600, 700
	o := Options{OutOfOrderWindow: time.Minute, MaxExemplars: granted}
	h := open(t, o)
	ref := put(t, h, labels.FromStrings("__name__", "m"), 1000, 1)
	add := func(h *Head, from, to int) {
		t.Helper()
		a := h.Appender()
		for i := from; i < to; i++ {
			if err := a.AppendExemplar(ref, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", strconv.Itoa(i)), Value: 1, Ts: int64(i), HasTs: true}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	add(h, 0, before)
	s, dir := snapped(t, h)
	o.Dir, o.Snapshot, o.SnapshotDir = t.TempDir(), &s, dir
	o.Restored = func(r Ref, _ labels.Labels, _ LastSample) { ref = r }
	again := open(t, o)
	if n := keptExemplars(t, again); n != before {
		t.Errorf("%d exemplars came back, want %d", n, before)
	}
	add(again, before, before+after)
	if n := keptExemplars(t, again); n != granted {
		t.Errorf("%d exemplars kept of %d, want %d", n, before+after, granted)
	}
}
