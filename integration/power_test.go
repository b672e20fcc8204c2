package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAPowerCutLosesNothingAcknowledged takes the power from all ingesters at once, again and again:
// what their disks had not been made to keep is gone, and with it the processes. Every acknowledged
// sample is there afterwards.
func TestAPowerCutLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	cuts := rounds(t, 2)
	ctx := bounded(t, 2*time.Minute+time.Duration(cuts)*30*time.Second)
	dir := t.TempDir()
	disks := map[string]*harness.Disk{}
	for _, name := range []string{"ingester-a", "ingester-b", "ingester-c"} {
		d, err := harness.NewDisk(filepath.Join(dir, name+".img"), filepath.Join(dir, name, "data"), 256)
		harness.Need(t, err)
		t.Cleanup(func() {
			if err := d.Unmount(); err != nil {
				t.Error(err)
			}
		})
		disks[name] = d
	}
	c := harness.Start(ctx, t, harness.Options{Dir: dir, Binary: binary(ctx, t), Files: true, Flags: busyFlags()})
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	j, end := busy(ctx, bases(c, "distributor"), bases(c, "querier"))
	for cut := range cuts {
		before, _ := j.count()
		eventually(ctx, t, "writes to be acknowledged", func() error {
			now, _ := j.count()
			return between(float64(now-before), 2000, 1e12)
		})
		ingesters := c.Of("ingester")
		// Without power nothing runs either: Linux lets a sync that waits while its file system is shut down
		// return as if it were done, and a process that still ran would acknowledge what the disk has not got.
		all(t, ingesters, func(n *harness.Node) error { return freeze(ctx, n) })
		var cutting sync.WaitGroup
		for _, n := range ingesters {
			cutting.Go(func() {
				if err := disks[n.Spec.Name].Cut(); err != nil {
					t.Error(err)
				}
			})
		}
		cutting.Wait()
		all(t, ingesters, func(n *harness.Node) error { return n.Kill() })
		begin := time.Now()
		for _, n := range ingesters {
			must(t, disks[n.Spec.Name].Unmount())
			must(t, disks[n.Spec.Name].Mount())
			must(t, n.Start())
		}
		must(t, c.WaitReady(ctx))
		settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
		t.Logf("cut %d: ready again after %s", cut+1, time.Since(begin).Round(time.Millisecond))
	}
	pause(ctx, t, 2*time.Second)
	end()
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, j.gap())
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

// freeze stops the process of n, and returns when none of its threads runs code of its own any more.
func freeze(ctx context.Context, n *harness.Node) error {
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return harness.Poll(ctx, func(context.Context) error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.PID()))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("no threads of %s: %w", n.Spec.Name, err)
		}
		for _, file := range threads {
			stat, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			_, state, _ := strings.Cut(string(stat), ") ") // after the name
			if state == "" || strings.Contains("RS", state[:1]) {
				return fmt.Errorf("a thread of %s runs or could: %s", n.Spec.Name, stat)
			}
		}
		return nil
	})
}
