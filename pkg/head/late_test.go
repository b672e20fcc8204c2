package head

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// TestLateSamplesOfAllSeriesSurviveACutUnderLoad has bursts of late samples, of series that had
// none, arrive while a cut gathers what is late.
func TestLateSamplesOfAllSeriesSurviveACutUnderLoad(t *testing.T) {
	const known, bursts, samples = 3000, 400, 70 // two closed chunks of late samples and an open one
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	name := func(kind string, k int) labels.Labels {
		return labels.FromStrings("__name__", kind, "k", fmt.Sprint(k))
	}
	fill := h.Appender()
	for k := range known {
		for _, at := range []int64{hour, hour - int64(k) - 1} {
			if _, err := fill.Append(0, name("known", k), at, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k := range bursts {
		if _, err := fill.Append(0, name("burst", k), hour, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := fill.Commit(); err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for k := next.Add(1) - 1; k < bursts; k = next.Add(1) - 1 {
				a := h.Appender()
				for s := range samples {
					if _, err := a.Append(0, name("burst", int(k)), hour-1-int64(s), float64(s)); err != nil {
						t.Error(err)
					}
				}
				if err := a.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for next.Load() < bursts {
		if err := h.cutLate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if err := h.cutLate(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := read(t, h)
	for k := range bursts {
		if n := len(strings.Fields(got[name("burst", k).String()])); n != samples+1 {
			t.Errorf("series %d has %d samples, want %d", k, n, samples+1)
		}
	}
	if len(got) != known+bursts {
		t.Errorf("%d series, want %d", len(got), known+bursts)
	}
}

func TestLateSamplesOfDaysPastGoToBlocksOfADay(t *testing.T) {
	const day = 24 * hour
	for _, large := range []bool{false, true} {
		h := open(t, Options{OutOfOrderWindow: 72 * time.Hour, LargeLateBlocks: large,
			Now: func() time.Time { return time.UnixMilli(10*day + 5*hour) }})
		ls := labels.FromStrings("__name__", "m")
		put(t, h, ls, 10*day+4*hour, 1)
		for at := 8*day + hour; at < 10*day+4*hour; at += hour {
			put(t, h, ls, at, float64(at))
		}
		before := read(t, h)
		if err := h.cutLate(t.Context()); err != nil {
			t.Fatal(err)
		}
		ranges := map[int64]int{}
		for _, b := range h.Blocks() {
			if !b.OutOfOrder || b.MinTime%(b.MaxTime-b.MinTime) != 0 {
				t.Errorf("block %+v is not an aligned one of late samples", b)
			}
			ranges[(b.MaxTime-b.MinTime)/hour]++
		}
		want := map[int64]int{2: 26}
		if large {
			want = map[int64]int{24: 2, 2: 2}
		}
		if fmt.Sprint(ranges) != fmt.Sprint(want) {
			t.Errorf("large %v: blocks by hours %v, want %v", large, ranges, want)
		}
		if after := read(t, h); after[ls.String()] != before[ls.String()] {
			t.Errorf("large %v: samples differ after the cut", large)
		}
	}
}

// scan returns the newest value of every series of m at the time at, NaN where there is none.
func scan(t *testing.T, h *Head, at int64, each func()) map[float64]int {
	q, err := h.ChunkQuerier(0, 3*hour)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer q.Close()
	out := map[float64]int{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	var it chunks.Iterator
	for set.Next() {
		if each != nil {
			each()
		}
		v := math.Inf(-1)
		it = set.At().Iterator(it)
		for it.Next() {
			ci := it.At().Chunk.Iterator(nil)
			for ci.Next() != chunkenc.ValNone {
				if ts, x := ci.At(); ts == at {
					v = x
				}
			}
		}
		out[v]++
	}
	if set.Err() != nil {
		t.Error(set.Err())
	}
	return out
}

// TestABatchIsVisibleEntirelyOrNotAtAll pushes the buckets of a histogram while queries count
// them, in order, late, mixed, and overtaken by another batch.
func TestABatchIsVisibleEntirelyOrNotAtAll(t *testing.T) {
	const series, rounds = 300, 150
	for name, at := range map[string]func(round, k int) int64{
		"in order": func(round, _ int) int64 { return hour + int64(round) },
		"late":     func(round, _ int) int64 { return hour - int64(round) },
		"mixed":    func(round, k int) int64 { return hour + int64(round)*int64(1-2*(k%2)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, Options{OutOfOrderWindow: time.Hour})
			refs := make([]Ref, series)
			for k := range refs {
				refs[k] = put(t, h, labels.FromStrings("__name__", "m", "le", fmt.Sprintf("%04d", k)), hour, 0)
			}
			var round atomic.Int64
			var wg sync.WaitGroup
			wg.Go(func() {
				for r := 1; r <= rounds; r++ {
					round.Store(int64(r))
					var again Appender
					a := h.TryAppender(math.MinInt64, &again)
					for a == nil {
						a = h.TryAppender(math.MinInt64, &again)
					}
					for k, ref := range refs {
						if _, err := a.Append(ref, labels.EmptyLabels(), at(r, k), float64(r)); err != nil {
							t.Error(err)
						}
					}
					if err := a.Commit(); err != nil {
						t.Error(err)
					}
				}
				round.Store(rounds + 1)
			})
			for range 3 {
				wg.Go(func() {
					for r := round.Load(); r <= rounds; r = round.Load() {
						if r == 0 {
							continue
						}
						seen := map[float64]int{}
						for _, ts := range []int64{at(int(r), 0), at(int(r), 1)} {
							for v, n := range scan(t, h, ts, nil) {
								seen[v] += n
							}
							if at(int(r), 0) == at(int(r), 1) {
								break
							}
						}
						if n := seen[float64(r)]; name != "mixed" && n != 0 && n != series {
							t.Errorf("round %d: %d of %d series are visible", r, n, series)
							return
						}
						if n := seen[float64(r)]; name == "mixed" && n%(series/2) != 0 {
							t.Errorf("round %d: %d of %d series are visible", r, n, series)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestBatchesThatOvertakeEachOtherAreVisibleEntirelyOrNotAtAll(t *testing.T) {
	const series, rounds = 200, 200
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	refs := make([]Ref, series)
	for k := range refs {
		refs[k] = put(t, h, labels.FromStrings("__name__", "m", "le", fmt.Sprintf("%04d", k)), hour, 0)
	}
	batch := func(at int64) *Appender {
		a := h.Appender()
		for _, ref := range refs {
			if _, err := a.Append(ref, labels.EmptyLabels(), at, float64(at)); err != nil {
				t.Error(err)
			}
		}
		return a
	}
	var now atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for r := range int64(rounds) {
			slow, quick := batch(hour+2*r+1), batch(hour+2*r+2)
			if err := quick.Commit(); err != nil {
				t.Error(err)
			}
			now.Store(hour + 2*r + 1)
			if err := slow.Commit(); err != nil {
				t.Error(err)
			}
		}
		now.Store(-1)
	})
	for range 3 {
		wg.Go(func() {
			for at := now.Load(); at >= 0; at = now.Load() {
				if n := scan(t, h, at, nil)[float64(at)]; at > 0 && n != 0 && n != series {
					t.Errorf("at %d: %d of %d series are visible", at, n, series)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAQueryThatIsNotReadOnEndsWhenLateSamplesWait(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	h.views.wait = 0 // as outside of tests
	for k := range 3 {
		put(t, h, labels.FromStrings("__name__", "m", "k", fmt.Sprint(k)), hour, 0)
	}
	q, err := h.ChunkQuerier(0, 2*hour)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	if !set.Next() {
		t.Fatal(set.Err())
	}
	put(t, h, labels.FromStrings("__name__", "m", "k", "1"), hour-1, 1) // waits for the query, but not for ever
	if set.Next() || !errors.Is(set.Err(), ErrOvertaken) {
		t.Errorf("the query goes on, error %v", set.Err())
	}
	if got := read(t, h)[`{__name__="m", k="1"}`]; got != fmt.Sprintf("%d:1 %d:0", hour-1, hour) {
		t.Errorf("got %s", got)
	}
}

func TestAQueryThatIsReadOnLetsLateSamplesInAndSeesNoneOfThem(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	refs := make([]Ref, 50)
	for k := range refs {
		refs[k] = put(t, h, labels.FromStrings("__name__", "m", "k", fmt.Sprint(k)), hour, 0)
		put(t, h, labels.FromStrings("__name__", "m", "k", fmt.Sprint(k)), hour-2, 0)
	}
	done := make(chan struct{})
	began := false
	got := scan(t, h, hour-1, func() {
		if !began {
			began = true
			go func() {
				defer close(done)
				a := h.Appender()
				for _, ref := range refs {
					if _, err := a.Append(ref, labels.EmptyLabels(), hour-1, 1); err != nil {
						t.Error(err)
					}
				}
				if err := a.Commit(); err != nil {
					t.Error(err)
				}
			}()
			for end := time.Now().Add(30 * time.Second); h.views.wanted.Load() == 0 && time.Now().Before(end); {
				runtime.Gosched() // until the commit waits for this query
			}
			return
		}
		<-done // the query does not end before the samples are in
	})
	if got[1] != 0 || got[math.Inf(-1)] != len(refs) {
		t.Errorf("the query sees samples that came after it began: %v", got)
	}
	if after := scan(t, h, hour-1, nil); after[1] != len(refs) {
		t.Errorf("a query that begins later sees %v", after)
	}
}

var _ storage.ChunkSeriesSet = (*chunkSet)(nil)

func TestADiskThatTakesNoChunksEndsACutAndNotTheProcess(t *testing.T) {
	cut := func(cause any) (err error) {
		defer recoverDisk(&err)
		panic(cause)
	}
	if err := cut(&os.PathError{Op: "write", Path: "000001", Err: syscall.ENOSPC}); errs.KindOf(err) != errs.Unavailable || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no room: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a bug is taken for a full disk")
		}
	}()
	_ = cut(errors.New("index out of range"))
}
