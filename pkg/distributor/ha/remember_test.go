package ha

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

func TestARestartKeepsWhoIsElected(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data", "elections")
	pol := &Policy{Update: 15 * time.Second, Failover: 30 * time.Second}
	start := time.Now()
	check := func(after time.Duration, replica string) (Verdict, string) {
		t.Helper()
		store, closer := consul.NewInMemoryClient(Codec{}, gokitlog.NewNopLogger(), nil)
		defer closer.Close()
		tr, err := New(Deps{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Reg: prometheus.NewPedanticRegistry(), Store: store, File: file,
			Now: func() time.Time { return start.Add(after) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := services.StartAndAwaitRunning(t.Context(), tr); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := services.StopAndAwaitTerminated(context.Background(), tr); err != nil {
				t.Error(err)
			}
		}()
		v, elected, err := tr.Check(t.Context(), Sender{Tenant: "t1", Cluster: "eu", Replica: replica}, pol, func() time.Time { return start.Add(after) })
		if err != nil {
			t.Fatal(err)
		}
		return v, elected
	}
	for _, step := range []struct {
		after   time.Duration
		replica string
		want    Verdict
		elected string
	}{
		{0, "a", Elected, "a"},
		{10 * time.Second, "b", NotElected, "a"},
		{20 * time.Second, "a", Elected, "a"},
		{45 * time.Second, "b", NotElected, "a"}, // heard 25 s ago
		{51 * time.Second, "b", Elected, "b"},    // a was silent for longer than a failover takes
		{55 * time.Second, "a", NotElected, "b"},
	} {
		if v, elected := check(step.after, step.replica); v != step.want || elected != step.elected {
			t.Errorf("%s after %s: %v, elected %q; want %v, %q", step.replica, step.after, v, elected, step.want, step.elected)
		}
	}
	if err := os.WriteFile(file, []byte("\x01\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, _ := check(56*time.Second, "a"); v != Elected {
		t.Errorf("with a damaged file: %v, want an election", v)
	}
}
