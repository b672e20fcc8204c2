package integration

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// smallDisk mounts a file system of so many MiB at dir.
func smallDisk(t *testing.T, dir string, mib int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o750))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(mib)+"m"); err != nil {
		if os.Getenv("CI") == "true" && os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, NOT TESTED: a small disk cannot be mounted (%v); run as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// leave fills the disk of dir until so many bytes are free, and makes room if there are fewer.
func leave(t *testing.T, dir string, bytes int64) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	must(t, errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o600)))
	var s syscall.Statfs_t
	must(t, syscall.Statfs(dir, &s))
	more := int64(s.Bavail)*s.Bsize - bytes
	if more <= 0 {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0o600)
	must(t, err)
	zeros := make([]byte, 1<<20)
	for more > 0 && err == nil {
		var n int
		n, err = f.Write(zeros[:min(more, int64(len(zeros)))])
		more -= int64(n)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
}

// onSmallDisk is a process whose data is on a small disk.
func onSmallDisk(ctx context.Context, t *testing.T, flags ...string) (n *harness.Node, disk string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	dir := t.TempDir()
	disk = filepath.Join(dir, "all", "data")
	smallDisk(t, disk, 64)
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: append([]string{"-distributor.ingestion-rate-limit=0"}, flags...)})
	return c.Nodes()[0], disk
}

// answers wants r to be a refusal that can be tried again, with the id.
func answers(t *testing.T, r reply, id string) {
	t.Helper()
	if r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "(err-amphora-"+id+")") || r.header.Get("Retry-After") == "" {
		t.Errorf("answered %s with Retry-After %q, want 503 with the id %s", r, r.header.Get("Retry-After"), id)
	}
}

// TestAFullDiskStopsWritesAndNothingElse fills the disk step by step while samples are pushed, kills
// the process on the full disk, and makes room again.
func TestAFullDiskStopsWritesAndNothingElse(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n, disk := onSmallDisk(ctx, t, "-ingester.min-free-disk-space-ratio=0.3", "-ingester.min-free-disk-space-bytes=8388608")
	j := newJournal("team-a", func() []string { return []string{n.URL("")} })
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 2) })
	defer func() { stop(); wg.Wait() }()
	progress := func(what string) {
		t.Helper()
		before, _ := j.count()
		eventually(ctx, t, what, func() error {
			if acked, _ := j.count(); acked < before+500 {
				return fmt.Errorf("%d samples more", acked-before)
			}
			return nil
		})
	}
	restriction := func(want float64) {
		t.Helper()
		eventually(ctx, t, fmt.Sprintf("restriction %g", want), func() error {
			if got := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_disk_restriction"); got != want {
				return fmt.Errorf("it is %g", got)
			}
			return nil
		})
	}
	progress("samples on an empty disk")
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "known")))

	leave(t, disk, 15<<20)
	restriction(1)
	answers(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "new")), "ingester-disk-low")
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 2, "__name__", "known")))
	progress("samples of known series on a disk that is nearly full")

	leave(t, disk, 0) // at once, so that writes meet it before it is seen
	restriction(2)
	answers(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 3, "__name__", "known")), "ingester-disk-full")
	has(ctx, t, n.URL(""), "team-a", "known", 1)
	starts := n.Starts()

	must(t, n.Kill())
	must(t, n.Start())
	eventually(ctx, t, "the start to wait", func() error {
		if b, err := os.ReadFile(n.LogFile); err != nil || !strings.Contains(string(b), "the start waits until there is room") {
			return fmt.Errorf("no word of it (%w)", err)
		}
		return nil
	})
	if r := call(ctx, t, http.MethodGet, n.URL("/ready"), nil); r.status != http.StatusServiceUnavailable {
		t.Errorf("ready on a full disk: %s", r)
	}
	must(t, os.Remove(filepath.Join(disk, "filler")))
	must(t, n.WaitReady(ctx))
	if n.Starts() != starts+1 || n.PID() == 0 {
		t.Errorf("%d starts, want %d", n.Starts(), starts+1)
	}
	progress("samples after there is room again")

	leave(t, disk, 0)
	restriction(2)
	must(t, os.Remove(filepath.Join(disk, "filler")))
	restriction(0)
	progress("samples without a restart")
	soundLog(ctx, t, n, j, func() { stop(); wg.Wait() })
}

// soundLog ends the load, kills the process and wants the log to have all that was acknowledged.
func soundLog(ctx context.Context, t *testing.T, n *harness.Node, j *journal, stop func()) {
	t.Helper()
	stop()
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up", acked, given)
	j.verify(ctx, t, n.URL(""))
	if got := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_tsdb_wal_corruptions_total"); got != 0 {
		t.Errorf("%g damaged places in the log", got)
	}
}

// noise is text of n bytes that hardly packs, so that a record with some of it does not fit into what
// is left of a page.
func noise(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(crand.Text())
	}
	return b.String()[:n]
}

// TestALogThatMeetsAFullDiskIsNotDamaged switches the guard off, so that writes meet the end of the
// disk themselves, again and again.
func TestALogThatMeetsAFullDiskIsNotDamaged(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n, disk := onSmallDisk(ctx, t, "-ingester.min-free-disk-space-ratio=0", "-ingester.min-free-disk-space-bytes=0")
	j := newJournal("team-a", func() []string { return []string{n.URL("")} })
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 3) })
	defer func() { stop(); wg.Wait() }()
	pid := n.PID()
	failed := func() float64 {
		return scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_tsdb_wal_writes_failed_total")
	}
	for round := range 3 {
		before, _ := j.count()
		eventually(ctx, t, "samples", func() error {
			if acked, _ := j.count(); acked < before+500 {
				return fmt.Errorf("%d more", acked-before)
			}
			return nil
		})
		met := failed()
		leave(t, disk, int64(round)*4096)
		eventually(ctx, t, "a write that finds no room", func() error {
			if failed() == met {
				return errors.New("none yet")
			}
			return nil
		})
		r := pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "meets_a_full_disk", "pad1", noise(1900), "pad2", noise(1900), "pad3", noise(1900)))
		if round == 0 && (r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "no space left")) {
			t.Errorf("a push on a full disk answered %s", r)
		}
		must(t, os.Remove(filepath.Join(disk, "filler")))
	}
	if n.PID() != pid {
		t.Error("the process ended")
	}
	soundLog(ctx, t, n, j, func() { stop(); wg.Wait() })
}
