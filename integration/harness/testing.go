package harness

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
)

// Start makes a cluster for t with its data in a directory of t, waits until it is ready, and
// stops it when t ends; a node that does not stop cleanly fails t. A missing server program skips
// t, except in CI, where it fails. If t fails, the end of every node's log is printed.
func Start(ctx context.Context, t testing.TB, opts Options) *Cluster {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.Log == nil {
		opts.Log = TestLog(t)
	}
	c, err := NewCluster(ctx, opts)
	t.Cleanup(func() {
		logs := func() {
			for _, n := range c.Nodes() {
				t.Logf("log of %s ends:\n%s", n.Process.Name, n.Tail())
			}
		}
		failed := t.Failed()
		if failed {
			logs()
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
			if !failed {
				logs()
			}
		}
	})
	Need(t, err)
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// Need ends t if err is not nil: as skipped if a program of `make tools` is missing and this is
// not CI, or if networks or disks cannot be made here, else as failed.
func Need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrNoNetwork), errors.Is(err, ErrNoDisk):
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	case errors.Is(err, ErrNoTool) && os.Getenv("CI") != "true":
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	default:
		t.Fatal(err)
	}
}

// TestLog returns a logger that writes to t's log.
func TestLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

// testWriter writes lines to a test's log. Processes that end late must not write to the log of
// a test that has ended; the test's context is done by then.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(line []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(bytes.TrimRight(line, "\n")))
	}
	return len(line), nil
}
