package head

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// fillKinds puts series of every kind into h, most with closed chunks, some with late samples.
func fillKinds(t testing.TB, h *Head, from, to int64) {
	t.Helper()
	for at := from; at < to; at += 15_000 {
		a := h.Appender()
		k := (at - from) / 15_000
		add := func(name string, f func(ls labels.Labels) error) {
			if err := f(labels.FromStrings("__name__", name)); err != nil {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
		}
		add("float", func(ls labels.Labels) error {
			ref, err := a.Append(0, ls, at, float64(k%7))
			if err == nil && k%50 == 0 {
				err = a.AppendExemplar(ref, exemplar.Exemplar{Labels: labels.FromStrings("trace", fmt.Sprint(k)), Value: 1, Ts: at, HasTs: true})
			}
			return err
		})
		add("histogram", func(ls labels.Labels) error {
			_, err := a.AppendHistogram(0, ls, at, tsdbutil.GenerateTestHistogram(k), nil)
			return err
		})
		add("float_histogram", func(ls labels.Labels) error {
			_, err := a.AppendHistogram(0, ls, at, nil, tsdbutil.GenerateTestFloatHistogram(k))
			return err
		})
		if k < 3 {
			add("short", func(ls labels.Labels) error { _, err := a.Append(0, ls, at, 1); return err })
		}
		if k%2 == 0 && k > 200 {
			add("float", func(ls labels.Labels) error { _, err := a.Append(0, ls, at-2_000_000+1, -1); return err })
		}
		if k%100 == 99 {
			add("histogram", func(ls labels.Labels) error {
				_, err := a.AppendHistogram(0, ls, at-7_000, tsdbutil.GenerateTestHistogram(k), nil)
				return err
			})
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		if k == 300 {
			h.ReleaseChunks() // some chunks are on disk, some on the heap
		}
	}
}

// snapped writes a snapshot of h to a directory of its own.
func snapped(t testing.TB, h *Head) (Snapshot, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	s, err := h.Snapshot(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func exemplarsOf(t testing.TB, h *Head) map[string]int {
	t.Helper()
	q, err := h.ExemplarQuerier(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, f := range found {
		for _, e := range f.Exemplars {
			out[fmt.Sprint(f.SeriesLabels, e.Labels, e.Ts)]++
		}
	}
	return out
}

func TestAHeadComesBackFromItsSnapshotAsItWas(t *testing.T) {
	o := Options{OutOfOrderWindow: time.Hour, MaxExemplars: 100}
	h := open(t, o)
	fillKinds(t, h, hour, 3*hour)
	s, dir := snapped(t, h)
	if s.Series != 4 || !s.Late {
		t.Fatalf("%+v, want four series and late samples", s)
	}
	var mu sync.Mutex
	created, last := map[string]int{}, map[string]LastSample{}
	o.Dir, o.Snapshot, o.SnapshotDir = t.TempDir(), &s, dir
	o.PostCreate = func(ls labels.Labels) {
		mu.Lock()
		defer mu.Unlock()
		created[ls.Get("__name__")]++
	}
	o.Restored = func(_ Ref, ls labels.Labels, l LastSample) { last[ls.Get("__name__")] = l }
	again := open(t, o)
	if got, want := read(t, again), read(t, h); !maps.Equal(got, want) {
		for k := range want {
			if got[k] != want[k] {
				t.Errorf("%s:\ngot  %.300s\nwant %.300s", k, got[k], want[k])
			}
		}
	}
	if got, want := exemplarsOf(t, again), exemplarsOf(t, h); len(want) == 0 || !maps.Equal(got, want) {
		t.Errorf("exemplars %v, want %v", got, want)
	}
	if again.MinTime() != h.MinTime() || again.MaxTime() != h.MaxTime() || again.NumSeries() != h.NumSeries() {
		t.Errorf("from %d to %d, want %d to %d", again.MinTime(), again.MaxTime(), h.MinTime(), h.MaxTime())
	}
	buckets := len(tsdbutil.GenerateTestHistogram(0).PositiveBuckets) + len(tsdbutil.GenerateTestHistogram(0).NegativeBuckets)
	end := 3*hour - 15_000
	want := map[string]LastSample{"float": {end, -1}, "histogram": {end, buckets}, "float_histogram": {end, buckets}, "short": {hour + 30_000, -1}}
	if !maps.Equal(last, want) || fmt.Sprint(created) != "map[float:1 float_histogram:1 histogram:1 short:1]" {
		t.Errorf("last samples %v, want %v; created %v", last, want, created)
	}
}

// TestAHeadGoesOnAfterItsSnapshot has the head with a past and the one from its snapshot take the
// same samples and cuts.
func TestAHeadGoesOnAfterItsSnapshot(t *testing.T) {
	o := Options{OutOfOrderWindow: time.Hour}
	h := open(t, o)
	fillKinds(t, h, hour, 2*hour)
	s, dir := snapped(t, h)
	o.Dir, o.Snapshot, o.SnapshotDir = t.TempDir(), &s, dir
	again := open(t, o)
	float := labels.FromStrings("__name__", "float")
	for _, h := range []*Head{h, again} {
		a := h.Appender()
		newest := 2*hour - 15_000
		if _, err := a.Append(0, float, newest, 77); err == nil {
			t.Error("another value for the newest sample is taken")
		}
		if _, err := a.Append(0, float, newest, float64((hour-15_000)/15_000%7)); err != nil {
			t.Errorf("the newest sample again: %v", err)
		}
		put := a.Commit()
		fillKinds(t, h, 2*hour, 3*hour)
		if err := errors.Join(put, second(h.Compact(t.Context(), false))); err != nil {
			t.Fatal(err)
		}
		fillKinds(t, h, 3*hour, 5*hour)
		if err := second(h.Compact(t.Context(), false)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read(t, again), read(t, h); !maps.Equal(got, want) {
		t.Error("samples differ after more pushes and cuts")
	}
	s, dir = snapped(t, again) // and once more
	o.Dir, o.Snapshot, o.SnapshotDir = t.TempDir(), &s, dir
	if err := os.CopyFS(o.Dir, os.DirFS(again.o.Dir)); err != nil {
		t.Fatal(err)
	}
	third := open(t, o)
	if third.MinTime() != h.MinTime() || len(third.Blocks()) != len(h.Blocks()) {
		t.Errorf("memory begins at %d, want %d", third.MinTime(), h.MinTime())
	}
	if got, want := read(t, third), read(t, h); !maps.Equal(got, want) {
		t.Error("samples differ after a second snapshot")
	}
}

func second(_ int, err error) error { return err }

// TestADamagedSnapshotIsNotUsed flips, cuts and removes each file in turn.
func TestADamagedSnapshotIsNotUsed(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour, MaxExemplars: 10})
	fillKinds(t, h, hour, 2*hour)
	s, dir := snapped(t, h)
	if len(s.Files) < 3 {
		t.Fatalf("files %+v", s.Files)
	}
	for _, f := range s.Files {
		for name, damage := range map[string]func(path string, b []byte) error{
			"flipped": func(path string, b []byte) error { b[len(b)/2] ^= 1; return os.WriteFile(path, b, 0o600) },
			"cut":     func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o600) },
			"longer":  func(path string, b []byte) error { return os.WriteFile(path, append(b, 0), 0o600) },
			"gone":    func(path string, _ []byte) error { return os.Remove(path) },
		} {
			bad := t.TempDir()
			if err := os.CopyFS(bad, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(bad, f.Name))
			if err == nil {
				err = damage(filepath.Join(bad, f.Name), b)
			}
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Dir: t.TempDir(), Snapshot: &s, SnapshotDir: bad, PostCreate: func(labels.Labels) { t.Error("a series comes back") }}
			if _, err := Open(o); !errors.Is(err, ErrSnapshot) {
				t.Errorf("%s %s: %v, want the snapshot refused", f.Name, name, err)
			}
			o.Snapshot, o.PostCreate = nil, nil
			if n := open(t, o).NumSeries(); n != 0 {
				t.Errorf("%s %s: %d series in a head without the snapshot", f.Name, name, n)
			}
		}
	}
	o := Options{Dir: t.TempDir(), Snapshot: &s, SnapshotDir: dir}
	wrong := s
	wrong.Series++ // as if the TSDB had passed over one
	o.Snapshot = &wrong
	if _, err := Open(o); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a series is missing: %v", err)
	}
	o.Snapshot = &s
	if _, err := Open(o); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a snapshot is used twice: %v", err)
	}
	evil := Snapshot{Series: 1, Files: []SnapshotFile{{Name: "../../etc/passwd"}}}
	o.Snapshot = &evil
	if _, err := Open(o); !errors.Is(err, ErrSnapshot) {
		t.Errorf("a file elsewhere: %v", err)
	}
}

func TestAnEmptyHeadHasAnEmptySnapshot(t *testing.T) {
	h := open(t, Options{})
	s, dir := snapped(t, h)
	if _, err := os.Stat(dir); s.Series != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%+v, %v", s, err)
	}
	if n := open(t, Options{Snapshot: &s, SnapshotDir: dir}).NumSeries(); n != 0 {
		t.Errorf("%d series", n)
	}
}

// TestClosedChunksOfAnEarlierHeadMeanNothing leaves chunks behind that would belong to other series.
func TestClosedChunksOfAnEarlierHeadMeanNothing(t *testing.T) {
	h := open(t, Options{OutOfOrderWindow: time.Hour})
	fillKinds(t, h, hour, 3*hour)
	h.ReleaseChunks()
	left := t.TempDir()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(left, os.DirFS(h.o.Dir)); err != nil {
		t.Fatal(err)
	}
	next := open(t, Options{Dir: left})
	for k := range 5 {
		put(t, next, labels.FromStrings("__name__", "other", "k", fmt.Sprint(k)), 3*hour, 1)
	}
	s, dir := snapped(t, next)
	want := read(t, next)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, open(t, Options{Dir: left, Snapshot: &s, SnapshotDir: dir})); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
