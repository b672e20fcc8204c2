package ingester

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// restarted stops s as planned and starts another ingester on its disk.
func (s *site) restarted(t testing.TB, o siteOptions) *site {
	t.Helper()
	s.stopped(t)
	o.dir, o.bucket, o.view = s.dir, s.bucket, *s.view.Load()
	return newSite(t, o)
}

func (s *site) stopped(t testing.TB) {
	t.Helper()
	if err := services.StopAndAwaitTerminated(context.Background(), s.Ingester); err != nil {
		t.Fatal(err)
	}
}

// snapshotFiles returns the files of the snapshot on disk.
func (s *site) snapshotFiles(t testing.TB) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.dir, path)
		if err == nil && d.Type().IsRegular() && (rel == snapshotFile || slices.Contains(strings.Split(rel, string(filepath.Separator)), snapshotDir)) {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// loggedTo has the ingester log to b.
func loggedTo(b *lockedBuffer) siteOptions {
	return siteOptions{logger: slog.New(slog.NewTextHandler(b, nil))}
}

// withoutSnapshot has the next start read the log.
func withoutSnapshot(c *Config) { c.SnapshotOnShutdown = false }

func lateView() limits.View { return limits.OutOfOrderTimeWindow.With(limits.View{}, 100*time.Hour) }

func TestAPlannedRestartDoesNotReadTheLog(t *testing.T) {
	s := newSite(t, siteOptions{view: lateView()})
	w := newSender(s.Ingester)
	for k := range int64(300) {
		w.mustPush(t, "t1", point{metric("a"), base + k*15_000, float64(k)}, point{metric("b"), base + k*15_000 - hour, 1})
		w.mustPush(t, "t2", point{metric("a"), base + k*15_000, float64(k)})
	}
	w.mustPush(t, "t1", point{metric("a"), base + 100, -1})
	want := []map[string]string{s.dump(t, "t1"), s.dump(t, "t2")}
	var logs lockedBuffer
	s = s.restarted(t, loggedTo(&logs))
	for k, id := range []string{"t1", "t2"} {
		equal(t, s.dump(t, id), want[k])
	}
	if !strings.Contains(logs.String(), "heads came back from the snapshot") || strings.Contains(logs.String(), "log read back") {
		t.Errorf("logs: %s", logs.String())
	}
	if left := s.snapshotFiles(t); len(left) > 0 {
		t.Errorf("left of the snapshot: %v", left)
	}
	if n := s.series.Load(); n != 3 {
		t.Errorf("%d series counted, want 3", n)
	}
	if got := s.counter(t, "amphora_ingester_active_series"); got != 3 {
		t.Errorf("%v active series, want 3", got)
	}
	// What is pushed from here on is in the log alone.
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base + 2*hour, 9}, point{metric("c"), base + 2*hour, 9})
	want[0] = s.dump(t, "t1")
	logs.reset()
	crashed := s.crashed(t, loggedTo(&logs))
	equal(t, crashed.dump(t, "t1"), want[0])
	equal(t, crashed.dump(t, "t2"), want[1])
	if !strings.Contains(logs.String(), "log read back") {
		t.Errorf("logs of a start after a crash: %s", logs.String())
	}
}

func TestASnapshotOfAnOlderStopIsNotUsed(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base, 1})
	s.stopped(t)
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	s = newSite(t, siteOptions{dir: s.dir})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base + 1, 2})
	want := s.dump(t, "t1")
	next := s.crashed(t, siteOptions{}) // a crash, of which a copy is made below
	next.stopped(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{snapshotFile, filepath.Join("tenants", "t1", snapshotDir)} {
		if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(old, snapshotFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, snapshotFile), b, 0o600)
	}
	if err == nil {
		err = os.CopyFS(filepath.Join(dir, "tenants", "t1", snapshotDir), os.DirFS(filepath.Join(old, "tenants", "t1", snapshotDir)))
	}
	if err != nil {
		t.Fatal(err)
	}
	var logs lockedBuffer
	o := loggedTo(&logs)
	o.dir = dir
	equal(t, newSite(t, o).dump(t, "t1"), want)
	if !strings.Contains(logs.String(), "log went on without it") {
		t.Errorf("logs: %s", logs.String())
	}
}

func TestSnapshotsCanBeSwitchedOffAndAFlushTakesTheirPlace(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"off":   func(c *Config) { c.SnapshotOnShutdown = false },
		"flush": func(c *Config) { c.FlushBlocksOnShutdown = true },
	} {
		s := newSite(t, siteOptions{change: change})
		newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base, 1})
		want := s.dump(t, "t1")
		s.stopped(t)
		if left := s.snapshotFiles(t); len(left) > 0 {
			t.Errorf("%s: snapshot %v", name, left)
		}
		equal(t, newSite(t, siteOptions{dir: s.dir}).dump(t, "t1"), want)
	}
}

// TestNoRestartLosesOrChangesSamples has an ingester live through pushes, cuts, planned stops,
// crashes and damaged snapshots in any order, and wants all that it acknowledged after each.
func TestNoRestartLosesOrChangesSamples(t *testing.T) {
	seeds.Run(t, 2, liveThroughRestarts)
}

func liveThroughRestarts(t *testing.T, rng *rand.Rand) {
	s := newSite(t, siteOptions{view: lateView()})
	w := newSender(s.Ingester)
	tenants := []string{"t1", "t2", "t3"}
	acked := map[string]map[string]map[int64]float64{}
	for _, id := range tenants {
		acked[id] = map[string]map[int64]float64{}
	}
	now := base
	for step := range 60 {
		switch op := rng.IntN(10); {
		case op < 6:
			for range 1 + rng.IntN(40) {
				now += rng.Int64N(2 * minute)
				pushSome(t, w, tenants[rng.IntN(len(tenants))], rng, now, acked)
			}
		case op < 7:
			if _, err := s.compact(t.Context(), s.all(), func(*tenantHead) bool { return rng.IntN(2) == 0 }); err != nil {
				t.Fatal(err)
			}
			if err := s.truncate(t.Context()); err != nil {
				t.Fatal(err)
			}
			w = newSender(s.Ingester)
		case op < 8:
			s = s.crashed(t, siteOptions{view: lateView()})
			w = newSender(s.Ingester)
		default:
			s.stopped(t)
			if files := s.snapshotFiles(t); rng.IntN(3) == 0 && len(files) > 0 {
				damage(t, rng, files[rng.IntN(len(files))])
			}
			s = newSite(t, siteOptions{dir: s.dir, bucket: s.bucket, view: lateView()})
			w = newSender(s.Ingester)
		}
		for _, id := range tenants {
			got := s.dump(t, id)
			for name, samples := range acked[id] {
				if text := textOf(samples); got[name] != text {
					t.Fatalf("step %d, tenant %s, series %s:\ngot  %s\nwant %s", step, id, name, got[name], text)
				}
			}
			if len(got) != len(acked[id]) {
				t.Fatalf("step %d, tenant %s: %d series, want %d", step, id, len(got), len(acked[id]))
			}
		}
	}
}

// pushSome pushes some samples, of which some are late, and notes those that were stored.
func pushSome(t *testing.T, w *sender, id string, rng *rand.Rand, now int64, acked map[string]map[string]map[int64]float64) {
	t.Helper()
	var points []point
	for _, k := range rng.Perm(6)[:1+rng.IntN(5)] {
		at := now
		if rng.IntN(4) == 0 {
			at -= rng.Int64N(3 * hour)
		}
		points = append(points, point{metric("m", "k", fmt.Sprint(k)), at, float64(rng.IntN(1000))})
	}
	for _, p := range points {
		if _, taken := acked[id][p.ls.String()][p.t]; taken {
			continue
		}
		res := w.push(t.Context(), w.frame(id, p))
		if res.Outcome == frame.UnknownRefs {
			clear(w.bound)
			res = w.push(t.Context(), w.frame(id, p))
		}
		if res.Outcome != frame.Stored {
			t.Fatalf("push: %+v", res)
		}
		if res.Rejected > 0 {
			continue
		}
		if acked[id][p.ls.String()] == nil {
			acked[id][p.ls.String()] = map[int64]float64{}
		}
		acked[id][p.ls.String()][p.t] = p.v
	}
}

func textOf(samples map[int64]float64) string {
	var times []int64
	for at := range samples {
		times = append(times, at)
	}
	slices.Sort(times)
	parts := make([]string, len(times))
	for k, at := range times {
		parts[k] = fmt.Sprintf("%d:%g", at-base, samples[at])
	}
	return strings.Join(parts, " ")
}

// damage flips a bit of a file, cuts it or removes it.
func damage(t *testing.T, rng *rand.Rand, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		switch k := rng.IntN(3); {
		case k == 0 && len(b) > 0:
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			err = os.WriteFile(path, b, 0o600)
		case k == 1 && len(b) > 0:
			err = os.WriteFile(path, b[:rng.IntN(len(b))], 0o600)
		default:
			err = os.Remove(path)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzSnapshotFile(f *testing.F) {
	s := snapshot{Version: snapshotVersion}
	dir := f.TempDir()
	if err := s.write(dir); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("00000000\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if (s == nil) == (err == nil) {
			t.Errorf("snapshot %v, error %v", s, err)
		}
	})
}
