package head

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

const hour = int64(time.Hour / time.Millisecond)

func open(t testing.TB, o Options) *Head {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	h, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.views.wait = time.Hour // a machine that stands still for seconds ends no query
	return h
}

func put(t testing.TB, h *Head, ls labels.Labels, ts int64, v float64) Ref {
	t.Helper()
	a := h.Appender()
	ref, err := a.Append(0, ls, ts, v)
	if err != nil {
		t.Fatalf("append %s at %d: %v", ls, ts, err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	return ref
}

// read returns every sample of every series as "labels t:v t:v".
func read(t testing.TB, h *Head) map[string]string {
	t.Helper()
	q, err := h.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string]string{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		var b strings.Builder
		it := set.At().Iterator(nil)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if vt == chunkenc.ValFloat {
				ts, v := it.At()
				fmt.Fprintf(&b, "%d:%g ", ts, v)
			} else {
				ts, fh := it.AtFloatHistogram(nil)
				fmt.Fprintf(&b, "%d:h%g ", ts, fh.Count)
			}
		}
		out[set.At().Labels().String()] = strings.TrimSpace(b.String())
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAppendByReference(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	ls := labels.FromStrings("__name__", "m", "a", "b")
	ref := put(t, h, ls, 1000, 1)
	a := h.Appender()
	if got, err := a.Append(ref, labels.EmptyLabels(), 2000, 2); err != nil || got != ref {
		t.Fatalf("append by reference: %d, %v", got, err)
	}
	if _, err := a.Append(ref+77, labels.EmptyLabels(), 2000, 2); !errors.Is(err, ErrUnknownRef) {
		t.Fatalf("append by a reference nobody has: %v", err)
	}
	if _, err := a.AppendHistogram(0, labels.FromStrings("__name__", "h"), 2000, tsdbutil.GenerateTestHistogram(3), nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	got := read(t, h)
	if got[ls.String()] != "1000:1 2000:2" || !strings.HasPrefix(got[`{__name__="h"}`], "2000:h") {
		t.Fatalf("read back %v", got)
	}
}

func TestBatchBecomesVisibleAtOnce(t *testing.T) {
	h := open(t, Options{})
	var refs []Ref
	for i := range 50 {
		refs = append(refs, put(t, h, labels.FromStrings("__name__", "m", "le", fmt.Sprint(i)), 0, 0))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ts := int64(1); ts <= 200; ts++ {
			a := h.Appender()
			for _, ref := range refs {
				if _, err := a.Append(ref, labels.EmptyLabels(), ts, float64(ts)); err != nil {
					t.Error(err)
				}
			}
			if err := a.Commit(); err != nil {
				t.Error(err)
			}
		}
	})
	for done := false; !done; {
		last := map[string]int{}
		for _, samples := range read(t, h) {
			last[samples[strings.LastIndex(samples, " ")+1:]]++
		}
		if len(last) != 1 {
			t.Fatalf("a reader saw half a batch: %v", last)
		}
		done = last["200:200"] == 50
	}
	wg.Wait()
}

func TestCompactCutsWhatIsDueAndLateSamples(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: 30 * time.Minute})
	ls := labels.FromStrings("__name__", "m")
	want := ""
	for ts := int64(0); ts <= 4*hour; ts += hour / 4 {
		put(t, h, ls, ts, float64(ts))
		want += fmt.Sprintf("%d:%g ", ts, float64(ts))
	}
	late := labels.FromStrings("__name__", "late")
	put(t, h, late, 4*hour, 1)
	put(t, h, late, 4*hour-hour/4, 2)
	if !h.CompactDue() {
		t.Fatal("four hours in memory and nothing due")
	}
	n, err := h.Compact(context.Background(), false)
	if err != nil || n != 2 {
		t.Fatalf("Compact = %d blocks, %v; want the first range and the late samples", n, err)
	}
	if h.CompactDue() || h.MinTime() != 2*hour {
		t.Errorf("after the cut: due %v, min time %d", h.CompactDue(), h.MinTime())
	}
	got := read(t, h)
	if got[ls.String()] != strings.TrimSpace(want) {
		t.Errorf("samples changed by the cut: %s", got[ls.String()])
	}
	if w := fmt.Sprintf("%d:2 %d:1", 4*hour-hour/4, 4*hour); got[late.String()] != w {
		t.Errorf("late samples: %q, want %q", got[late.String()], w)
	}
	for _, b := range h.Blocks() {
		if b.OutOfOrder && b.Samples != 1 {
			t.Errorf("block of late samples: %+v", b)
		}
	}
}

// A batch that was begun before the newest sample came may bring the oldest one while a cut waits.
func TestACutTakesWhatLandsWhileItWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h, err := Open(Options{Dir: dir, OutOfOrderWindow: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		m := labels.FromStrings("__name__", "m")
		put(t, h, m, 100*hour, 1)
		a := h.Appender()
		if _, err := a.Append(0, labels.FromStrings("__name__", "slow"), 100*hour-hour/2, 7); err != nil {
			t.Fatal(err)
		}
		put(t, h, m, 104*hour, 2)
		cut := make(chan error, 1)
		go func() {
			_, err := h.Compact(context.Background(), false)
			cut <- err
		}()
		synctest.Wait()
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-cut; err != nil {
			t.Fatal(err)
		}
		if got := read(t, h)[`{__name__="slow"}`]; got != fmt.Sprintf("%d:7", 100*hour-hour/2) {
			t.Errorf("the sample that landed meanwhile: %q", got)
		}
	})
}

func TestForcedCompactEmptiesAndTakesMore(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Minute})
	ls := labels.FromStrings("__name__", "m")
	ref := put(t, h, ls, 5000, 1)
	put(t, h, ls, 6000, 2)
	put(t, h, ls, 5500, 3)
	if _, err := h.Compact(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	if n := h.NumSeries(); n != 0 {
		t.Errorf("%d series left in memory", n)
	}
	a := h.Appender()
	if _, err := a.Append(ref, labels.EmptyLabels(), 7000, 3); !errors.Is(err, ErrUnknownRef) {
		t.Errorf("reference to a removed series: %v", err)
	}
	if err := a.Rollback(); err != nil {
		t.Fatal(err)
	}
	put(t, h, ls, 7000, 4)
	if got := read(t, h)[ls.String()]; got != "5000:1 5500:3 6000:2 7000:4" {
		t.Errorf("read back %q", got)
	}
}

func TestReopenKeepsBlocksAndSetsDamagedOnesAside(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Options{Dir: dir})
	put(t, h, labels.FromStrings("__name__", "m"), 5000, 1)
	if _, err := h.Compact(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	put(t, h, labels.FromStrings("__name__", "m"), 6000, 1)
	block := h.Blocks()[0]
	h.Close()

	again := open(t, Options{Dir: dir})
	if got := read(t, again); len(got) != 1 || got[`{__name__="m"}`] != "5000:1" {
		t.Fatalf("after reopening: %v; want the block and nothing of the memory", got)
	}
	again.Close()

	if err := os.WriteFile(filepath.Join(block.Dir, "index"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := open(t, Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if len(damaged.Blocks()) != 0 {
		t.Error("a damaged block is served")
	}
	if _, err := os.Stat(block.Dir + ".damaged"); err != nil {
		t.Error("the damaged block was not kept aside:", err)
	}
}

func TestDroppedBlocksLeaveAtTheNextSweep(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Minute})
	put(t, h, labels.FromStrings("__name__", "m"), 5000, 1)
	if _, err := h.Compact(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	b := h.Blocks()[0]
	h.DropBlocks(b.ID)
	if len(h.Blocks()) != 0 {
		t.Error("a dropped block is still listed")
	}
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dropped block is still on disk: %v", err)
	}
}

func TestPreCreateRefusesNewSeries(t *testing.T) {
	full := errors.New("full")
	created := 0
	h := open(t, Options{
		PreCreate: func(ls labels.Labels) error {
			if created > 0 {
				return full
			}
			return nil
		},
		PostCreate: func(labels.Labels) { created++ },
	})
	ref := put(t, h, labels.FromStrings("__name__", "m"), 5000, 1)
	a := h.Appender()
	if _, err := a.Append(0, labels.FromStrings("__name__", "n"), 5000, 1); !errors.Is(err, full) {
		t.Errorf("second series: %v", err)
	}
	if _, err := a.Append(ref, labels.EmptyLabels(), 6000, 1); err != nil {
		t.Errorf("the batch must go on: %v", err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestSetLimitsChangesTheWindowAndExemplars(t *testing.T) {
	h := open(t, Options{})
	ls := labels.FromStrings("__name__", "m")
	ref := put(t, h, ls, 2*hour, 1)
	a := h.Appender()
	if _, err := a.Append(ref, ls, 2*hour-1000, 1); !errors.Is(err, storage.ErrOutOfOrderSample) {
		t.Errorf("no window: %v", err)
	}
	if err := a.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := h.SetLimits(time.Minute, 10); err != nil {
		t.Fatal(err)
	}
	a = h.Appender()
	if _, err := a.Append(ref, ls, 2*hour-1000, 1); err != nil {
		t.Errorf("inside the window: %v", err)
	}
	if _, err := a.Append(ref, ls, 2*hour-61_000, 1); !errors.Is(err, storage.ErrTooOldSample) {
		t.Errorf("outside the window: %v", err)
	}
	if err := a.AppendExemplar(ref, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "x"), Value: 1, Ts: 2 * hour, HasTs: true}); err != nil {
		t.Error(err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	q, err := h.ExemplarQuerier(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	res, err := q.Select(0, 3*hour, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")})
	if err != nil || len(res) != 1 || len(res[0].Exemplars) != 1 {
		t.Errorf("exemplars: %v, %v", res, err)
	}
}

// TestLimitsChangeBesideAppends is for the race detector, and for batches that make room for exemplars meanwhile.
func TestLimitsChangeBesideAppends(t *testing.T) {
	const batches = 300
	h := open(t, Options{OutOfOrderWindow: time.Minute, MaxExemplars: 10})
	ls := labels.FromStrings("__name__", "m")
	ref := put(t, h, ls, 1000, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(batches) {
			a := h.Appender()
			if _, err := a.Append(ref, ls, 2000+i, 1); err != nil {
				t.Error(err)
			}
			if err := a.AppendExemplar(ref, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", strconv.FormatInt(i, 10)), Value: 1, Ts: 2000 + i, HasTs: true}); err != nil {
				t.Error(err)
			}
			if err := a.Commit(); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			if h.MaxTime() != 2000+batches-1 {
				t.Errorf("the newest sample is at %d", h.MaxTime())
			}
			return
		default:
		}
		if err := h.SetLimits(time.Duration(1+i%3)*time.Minute, 10+i%50); err != nil {
			t.Error(err)
		}
	}
}

func TestForEachSeries(t *testing.T) {
	h := open(t, Options{})
	want := map[Ref]string{}
	for i := range 100 {
		ls := labels.FromStrings("__name__", fmt.Sprint("m", i))
		want[put(t, h, ls, 5000, 1)] = ls.String()
	}
	err := h.ForEachSeries(func(ref Ref, ls labels.Labels) error {
		if want[ref] != ls.String() {
			t.Errorf("%d is %s, want %s", ref, ls, want[ref])
		}
		delete(want, ref)
		return nil
	})
	if err != nil || len(want) != 0 {
		t.Errorf("%v; not visited: %v", err, want)
	}
}

// A time near the ends of the integers must not make a head refuse what comes after it.
func TestFarTimesAreRefusedAndHarmNothing(t *testing.T) {
	for _, far := range []int64{math.MinInt64, math.MinInt64 + 1, math.MinInt64 + 2*hour, -farTime - 1, farTime + 1, math.MaxInt64} {
		h := open(t, Options{OutOfOrderWindow: time.Hour})
		a := h.Appender()
		if _, err := a.Append(0, labels.FromStrings("__name__", "far"), far, 1); !errors.Is(err, storage.ErrOutOfBounds) {
			t.Errorf("%d: %v, want out of bounds", far, err)
		}
		if _, err := a.AppendHistogram(0, labels.FromStrings("__name__", "far"), far, tsdbutil.GenerateTestHistogram(1), nil); !errors.Is(err, storage.ErrOutOfBounds) {
			t.Errorf("histogram at %d: %v, want out of bounds", far, err)
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		put(t, h, labels.FromStrings("__name__", "m"), 1_700_000_000_000, 1)
		if got := read(t, h); len(got) != 1 {
			t.Errorf("after a sample at %d: %v", far, got)
		}
	}
	// The farthest that is taken can be cut and does not stop the present.
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	put(t, h, labels.FromStrings("__name__", "m"), -farTime, 1)
	put(t, h, labels.FromStrings("__name__", "m"), 1_700_000_000_000, 2)
	if !h.CompactDue() {
		t.Fatal("not due")
	}
	if n, err := h.Compact(t.Context(), false); err != nil || n != 1 {
		t.Fatalf("%d blocks, %v", n, err)
	}
}

func TestLabelsOfAReference(t *testing.T) {
	h := open(t, Options{})
	ls := labels.FromStrings("__name__", "m", "a", "b")
	ref := put(t, h, ls, 1000, 1)
	if got, ok := h.Labels(ref); !ok || !labels.Equal(got, ls) {
		t.Errorf("labels of %d: %s, %v", ref, got, ok)
	}
	if got, ok := h.Labels(ref + 1); ok {
		t.Errorf("labels of nothing: %s", got)
	}
}

func TestHistogramsThatContradictTheirBatchAreRefused(t *testing.T) {
	h := open(t, Options{})
	ls := labels.FromStrings("__name__", "m")
	a := h.Appender()
	ref, err := a.AppendHistogram(0, ls, 1000, tsdbutil.GenerateTestHistogram(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.AppendHistogram(ref, ls, 1000, tsdbutil.GenerateTestHistogram(1), nil); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := a.AppendHistogram(ref, ls, 1000, tsdbutil.GenerateTestHistogram(2), nil); !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
		t.Errorf("another for the same time: %v", err)
	}
	if _, err := a.AppendHistogram(ref, ls, 1000, nil, tsdbutil.GenerateTestFloatHistogram(1)); !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
		t.Errorf("another form for the same time: %v", err)
	}
	if _, err := a.AppendHistogram(ref, ls, 999, tsdbutil.GenerateTestHistogram(2), nil); !errors.Is(err, storage.ErrOutOfOrderSample) {
		t.Errorf("an older one: %v", err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkAppendByReference(b *testing.B) {
	h := open(b, Options{OutOfOrderWindow: time.Minute})
	refs := make([]Ref, 0, 200_000)
	for i := range cap(refs) {
		refs = append(refs, put(b, h, labels.FromStrings("__name__", "bench", "pod", fmt.Sprintf("pod-%d", i/100), "i", fmt.Sprint(i)), 0, 0))
	}
	b.Run("series=200k/batch=2000", func(b *testing.B) {
		b.ReportAllocs()
		at, ts := 0, int64(0)
		var again Appender
		for b.Loop() {
			if at == 0 {
				ts += 15_000
			}
			a := h.TryAppender(math.MinInt64, &again)
			for i := range 2000 {
				if _, err := a.Append(refs[at+i], labels.EmptyLabels(), ts, float64(ts)); err != nil {
					b.Fatal(err)
				}
			}
			if err := a.Commit(); err != nil {
				b.Fatal(err)
			}
			at = (at + 2000) % len(refs)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
	})
}
