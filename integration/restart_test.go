package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAPlannedRestartGoesOnFromItsSnapshot restarts a process under load: as planned, killed, and
// as planned with a snapshot that was damaged meanwhile.
func TestAPlannedRestartGoesOnFromItsSnapshot(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-distributor.ingestion-rate-limit=0", "-ingester.out-of-order-time-window=1h")
	j := newJournal("team-a", func() []string { return []string{n.URL("")} })
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 2) })
	defer func() { stop(); wg.Wait() }()
	log := func() string {
		b, err := os.ReadFile(n.LogFile)
		must(t, err)
		return string(b)
	}
	const restored, replayed = "heads came back from the snapshot", "write-ahead log read back"
	damage := func() error {
		found, err := filepath.Glob(filepath.Join(n.DataDir, "tenants", "team-a", "snapshot", "chunk_snapshot.*", "*"))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("no snapshot: %w", err)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(found[0], b, 0o600)
	}
	for _, c := range []struct {
		name       string
		end        func() error
		want, lack string
	}{
		{"planned", n.Process.Stop, restored, replayed},
		{"killed", n.Kill, replayed, restored},
		{"damaged", func() error { return errors.Join(n.Process.Stop(), damage()) }, "snapshot of a tenant not used", restored},
		{"planned again", n.Process.Stop, restored, replayed},
	} {
		before, _ := j.count()
		eventually(ctx, t, "some samples", func() error {
			if acked, _ := j.count(); acked < before+1000 {
				return fmt.Errorf("%d samples", acked-before)
			}
			return nil
		})
		must(t, c.end())
		seen := len(log())
		must(t, n.Start())
		must(t, n.WaitReady(ctx))
		if l := log()[seen:]; !strings.Contains(l, c.want) || strings.Contains(l, c.lack) {
			t.Errorf("%s: the log of the start has no %q, or has %q:\n%s", c.name, c.want, c.lack, l)
		}
	}
	stop()
	wg.Wait()
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up", acked, given)
	j.verify(ctx, t, n.URL(""))
}
