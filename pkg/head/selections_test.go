package head

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// chunksOf returns what matchers select, in the order in which it comes.
func chunksOf(t testing.TB, h *Head, ms ...*labels.Matcher) string {
	t.Helper()
	q, err := h.ChunkQuerier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var b strings.Builder
	set := q.Select(t.Context(), true, &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64, DisableTrimming: true}, ms...)
	for set.Next() {
		fmt.Fprintf(&b, "\n%s", set.At().Labels())
		for it := set.At().Iterator(nil); it.Next(); {
			samples := it.At().Chunk.Iterator(nil)
			for samples.Next() == chunkenc.ValFloat {
				at, v := samples.At()
				fmt.Fprintf(&b, " %d:%g", at, v)
			}
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func matchers(kv ...any) (out []*labels.Matcher) {
	for k := 0; k < len(kv); k += 3 {
		out = append(out, labels.MustNewMatcher(kv[k+1].(labels.MatchType), kv[k].(string), kv[k+2].(string)))
	}
	return out
}

// TestSelectionsChangeNoAnswer compares a head that has them with one that looks everything up,
// while series come, go and are late.
func TestSelectionsChangeNoAnswer(t *testing.T) {
	s := NewSelections(SelectionsOptions{Keep: time.Hour, MaxBytes: 1 << 20})
	with, without := open(t, Options{Selections: s, OutOfOrderWindow: 24 * time.Hour}), open(t, Options{OutOfOrderWindow: 24 * time.Hour})
	asked := [][]*labels.Matcher{
		matchers("__name__", labels.MatchEqual, "m1"), matchers("__name__", labels.MatchEqual, "m2", "n", labels.MatchRegexp, "1.*"),
		matchers("n", labels.MatchRegexp, "2|3"), matchers("n", labels.MatchNotEqual, "4", "__name__", labels.MatchRegexp, "m.+"),
		matchers("x", labels.MatchEqual, "", "__name__", labels.MatchEqual, "m3"), matchers("n", labels.MatchEqual, "7"),
	}
	r := rand.New(rand.NewSource(1))
	now := int64(0)
	for step := range 600 {
		at := now
		if r.Intn(5) == 0 && step > 100 {
			at -= int64(r.Intn(int(hour))) // late
		} else {
			now += 1000
			at = now
		}
		ls := labels.FromStrings("__name__", fmt.Sprint("m", r.Intn(4)), "n", fmt.Sprint(r.Intn(10+step/20)))
		for _, h := range []*Head{with, without} {
			a := h.Appender()
			_, aerr := a.Append(0, ls, at, float64(step))
			if err := a.Commit(); err != nil {
				t.Fatal(aerr, err)
			}
		}
		if step == 400 {
			for _, h := range []*Head{with, without} {
				if _, err := h.Compact(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			}
		}
		ms := asked[r.Intn(len(asked))]
		for range 2 {
			if got, want := chunksOf(t, with, ms...), chunksOf(t, without, ms...); got != want {
				t.Fatalf("step %d, %v: got %s\nwant %s", step, ms, got, want)
			}
		}
		// Each second look finds what the first one did, also beside late samples.
		if asks, hits := s.Asked(); hits < asks/2 {
			t.Fatalf("step %d: %d of %d were known; do the readers of the TSDB have other names?", step, hits, asks)
		}
	}
}

func TestASeriesIsFoundAsSoonAsItIsStored(t *testing.T) {
	s := NewSelections(SelectionsOptions{Keep: time.Hour, MaxBytes: 1 << 20})
	h := open(t, Options{Selections: s})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for k := range 200 {
				put(t, h, labels.FromStrings("__name__", "m", "w", fmt.Sprint(w), "k", fmt.Sprint(k)), hour, 1)
				if got := strings.Count(chunksOf(t, h, matchers("__name__", labels.MatchEqual, "m", "w", labels.MatchEqual, fmt.Sprint(w))...), "\n"); got != k+1 {
					t.Errorf("%d series found, %d are stored", got, k+1)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestSelectionsAreBoundedAndForgotten(t *testing.T) {
	now, taken := time.Unix(0, 0), int64(0)
	s := NewSelections(SelectionsOptions{Keep: 10 * time.Second, MaxBytes: 4000, Now: func() time.Time { return now }, Take: func(n int64) { taken += n }})
	h, other := new(Head), new(Head)
	ask := func(h *Head, text string, n int) (found bool) {
		t.Helper()
		refs, err := s.get(t.Context(), selectionKey{h, text}, 7, func() ([]storage.SeriesRef, error) {
			found = true
			return make([]storage.SeriesRef, n), nil
		})
		if err != nil || len(refs) != n {
			t.Fatalf("%d series, %v", len(refs), err)
		}
		return found
	}
	for k := range 100 {
		ask(h, fmt.Sprint(k), 10)
		if b := s.Bytes(); b > 4000 || b != taken {
			t.Fatalf("%d bytes, told %d", b, taken)
		}
	}
	if ask(h, "99", 10) || !ask(h, "0", 10) {
		t.Error("the oldest is not what was dropped")
	}
	if ask(h, "large", 1000); !ask(h, "large", 1000) {
		t.Error("one that takes the room of all others is kept")
	}
	ask(other, "99", 10)
	s.drop(func(of *Head) bool { return of == h })
	if !ask(h, "99", 10) || ask(other, "99", 10) {
		t.Error("the wrong head is forgotten")
	}
	now = now.Add(10 * time.Second)
	if !ask(other, "99", 10) {
		t.Error("known for longer than it is kept")
	}
	failed := errors.New("cancelled")
	if _, err := s.get(t.Context(), selectionKey{h, "bad"}, 7, func() ([]storage.SeriesRef, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if !ask(h, "bad", 1) {
		t.Error("a failure is kept")
	}
}

func TestWhoWaitsForASelectionThatFailsLooksByItself(t *testing.T) {
	s := NewSelections(SelectionsOptions{Keep: time.Hour, MaxBytes: 1 << 20})
	key := selectionKey{new(Head), "k"}
	begun, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = s.get(context.Background(), key, 1, func() ([]storage.SeriesRef, error) {
			close(begun)
			<-end
			return nil, context.Canceled
		})
	})
	<-begun
	wg.Go(func() {
		refs, err := s.get(context.Background(), key, 1, func() ([]storage.SeriesRef, error) { return []storage.SeriesRef{1}, nil })
		if err != nil || len(refs) != 1 {
			t.Errorf("%v, %v", refs, err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.get(ctx, key, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("who does not want to wait: %v", err)
	}
	close(end)
	wg.Wait()
}

// BenchmarkSelect looks up one series in fifty of 50,000, sorted, by a regular expression, before
// samples are read.
func BenchmarkSelect(b *testing.B) {
	for name, s := range map[string]*Selections{"looked up": nil, "known": NewSelections(SelectionsOptions{Keep: time.Hour, MaxBytes: 1 << 20})} {
		b.Run("series=50k/"+name, func(b *testing.B) {
			h := open(b, Options{Selections: s})
			a := h.Appender()
			for k := range 50_000 {
				if _, err := a.Append(0, labels.FromStrings("__name__", fmt.Sprint("m", k%50), "instance", fmt.Sprint("host-", k/50, ":9100"), "job", "node"), 1, 1); err != nil {
					b.Fatal(err)
				}
			}
			if err := a.Commit(); err != nil {
				b.Fatal(err)
			}
			ms := matchers("__name__", labels.MatchEqual, "m7", "instance", labels.MatchRegexp, "host-.*[0-9]:9100")
			b.ReportAllocs()
			for b.Loop() {
				q, err := h.ChunkQuerier(0, 1)
				if err != nil {
					b.Fatal(err)
				}
				if set := q.Select(b.Context(), true, nil, ms...); !set.Next() {
					b.Fatal("nothing found")
				}
				q.Close()
			}
		})
	}
}
