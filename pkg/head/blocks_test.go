package head

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// cut makes a block of one sample.
func cut(t testing.TB, h *Head, at int64) {
	t.Helper()
	put(t, h, labels.FromStrings("__name__", "m"), at, float64(at))
	if _, err := h.Compact(context.Background(), true); err != nil {
		t.Fatal(err)
	}
}

func TestBlocksAreOpenOnlyWhileTheyAreRead(t *testing.T) {
	shared, err := NewShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	h := open(t, Options{Shared: shared, Now: func() time.Time { return now }})
	for at := range int64(4) {
		cut(t, h, at*2*hour+1)
	}
	opened := func(want int64) {
		t.Helper()
		if err := h.Sweep(); err != nil {
			t.Fatal(err)
		}
		if n := shared.blocks.n.Load(); n != want {
			t.Errorf("%d blocks are open, want %d", n, want)
		}
	}
	opened(0)
	q, err := h.Querier(0, 4*hour-1)
	if err != nil {
		t.Fatal(err)
	}
	opened(2) // those that overlap
	now = now.Add(closeAfter)
	opened(2) // in use
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	opened(2) // perhaps soon again
	now = now.Add(closeAfter)
	opened(0)
	if got := read(t, h)[`{__name__="m"}`]; len(strings.Fields(got)) != 4 {
		t.Errorf("read %q", got)
	}
	opened(4)
	shared.blocks.n.Add(mostOpen) // of other heads
	if got := read(t, h); len(got) != 1 {
		t.Errorf("read %v", got)
	}
	opened(mostOpen) // closed as soon as they were read
	shared.blocks.n.Add(-mostOpen)
}

func TestADroppedBlockStaysForThoseWhoReadIt(t *testing.T) {
	h := open(t, Options{})
	cut(t, h, 1)
	b := h.Blocks()[0]
	q, err := h.Querier(0, hour)
	if err != nil {
		t.Fatal(err)
	}
	h.DropBlocks(b.ID)
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	if !set.Next() || set.Err() != nil {
		t.Errorf("a query lost its block: %v", set.Err())
	}
	if got := read(t, h); len(got) != 0 {
		t.Errorf("a dropped block is read by a new query: %v", got)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the block is still on disk: %v", err)
	}
}

func TestHalfWrittenAndHalfDeletedBlocksAreForgotten(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Options{Dir: dir})
	cut(t, h, 1)
	whole := h.Blocks()[0]
	h.Close()
	for _, suffix := range []string{tmpCreation, tmpDeletion} {
		if err := os.CopyFS(whole.Dir+suffix, os.DirFS(whole.Dir)); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, Options{Dir: dir})
	if got := again.Blocks(); len(got) != 1 || got[0] != whole {
		t.Errorf("blocks after reopening: %+v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, blocksDir, "*.tmp-*")); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
}

// A block beside the head, where the TSDB by itself puts it, is served like the others.
func TestBlocksBesideTheHeadJoin(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Options{Dir: dir})
	cut(t, h, 1)
	b := h.Blocks()[0]
	h.Close()
	if err := os.Rename(b.Dir, filepath.Join(dir, b.ID.String())); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir})
	if got := again.Blocks(); len(got) != 1 || got[0] != b {
		t.Errorf("blocks after reopening: %+v", got)
	}
}

func TestSamplesOlderThanABlockAreLateAfterReopening(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Options{Dir: dir})
	cut(t, h, hour)
	h.Close()
	again := open(t, Options{Dir: dir})
	a := again.Appender()
	defer func() { _ = a.Rollback() }()
	if _, err := a.Append(0, labels.FromStrings("__name__", "n"), hour-1, 1); !errors.Is(err, storage.ErrOutOfBounds) {
		t.Errorf("a sample older than the block: %v", err)
	}
	if _, err := a.Append(0, labels.FromStrings("__name__", "n"), hour+1, 1); err != nil {
		t.Errorf("a newer one: %v", err)
	}
}

// Whatever is cut, dropped from memory and closed meanwhile, a reader has every sample that was
// visible when it began, once.
func TestReadersMissNothingWhileBlocksAreCut(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: 3 * time.Hour})
	ls := labels.FromStrings("__name__", "m")
	const samples, step = 600, hour / 20
	var done atomic.Int64
	var writing sync.WaitGroup
	stop := make(chan struct{})
	writing.Go(func() {
		defer close(stop)
		for k := range int64(samples) {
			put(t, h, ls, k*step, float64(k))
			if k > 40 && k%5 == 0 {
				a := h.TryAppender((k-30)*step, nil)
				for a == nil { // what is as old is being cut
					runtime.Gosched()
					a = h.TryAppender((k-30)*step, nil)
				}
				if _, err := a.Append(0, labels.FromStrings("__name__", "late"), (k-30)*step, 1); err != nil {
					t.Error(err)
				}
				if err := a.Commit(); err != nil {
					t.Error(err)
				}
			}
			done.Store(k + 1)
		}
	})
	writing.Go(func() {
		for force := false; ; force = !force {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := h.Compact(context.Background(), force && done.Load()%3 == 0); err != nil {
				t.Error(err)
			}
			if err := h.Sweep(); err != nil {
				t.Error(err)
			}
		}
	})
	for reads := 0; ; reads++ {
		want := done.Load()
		got := len(strings.Fields(read(t, h)[ls.String()]))
		if int64(got) < want {
			t.Fatalf("read %d: %d samples of at least %d", reads, got, want)
		}
		n := 0
		q, err := h.ChunkQuerier(math.MinInt64, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
		for set.Next() {
			for it := set.At().Iterator(nil); it.Next(); {
				n += it.At().Chunk.NumSamples()
			}
		}
		if set.Err() != nil || q.Close() != nil {
			t.Fatal(set.Err())
		}
		if int64(n) < want {
			t.Fatalf("read %d: %d samples in chunks of at least %d", reads, n, want)
		}
		if want == samples {
			break
		}
	}
	writing.Wait()
}
