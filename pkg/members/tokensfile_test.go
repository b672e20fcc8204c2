package members

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

// lines is a log.
type lines struct {
	mu  sync.Mutex // guards all
	all []string
}

// Log is part of log.Logger.
func (l *lines) Log(kv ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line strings.Builder
	for _, x := range kv {
		if s, ok := x.(string); ok {
			line.WriteString(s + " ")
		}
	}
	l.all = append(l.all, line.String())
	return nil
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.all, func(s string) bool { return strings.Contains(s, text) })
}

// TestATokensFileThatAPowerCutEmptiedIsWrittenAnew starts an ingester's member of the ring with what a power
// cut may leave of its file, which is replaced without being synced.
func TestATokensFileThatAPowerCutEmptiedIsWrittenAnew(t *testing.T) {
	for what, left := range map[string]string{"nothing": "", "zeros": strings.Repeat("\x00", 64), "a part": `{"tokens":[17,`} {
		t.Run(what, func(t *testing.T) {
			dir, log := t.TempDir(), &lines{}
			file := filepath.Join(dir, "tokens")
			if err := os.WriteFile(file, []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			store, closer := consul.NewInMemoryClient(ring.GetCodec(), log, nil)
			defer closer.Close()
			c := Config{Tokens: TokenConfig{Number: 16, Strategy: strategyBalanced}}
			lc := ring.LifecyclerConfig{HeartbeatPeriod: time.Second, HeartbeatTimeout: time.Minute, Addr: "127.0.0.1", ID: "a"}
			lc.RingConfig.KVStore.Mock, lc.RingConfig.HeartbeatTimeout = store, time.Minute
			if err := c.ApplyTokens(&lc, "a", dir, false); err != nil {
				t.Fatal(err)
			}
			l, err := ring.NewLifecycler(lc, ring.NewNoopFlushTransferer(), "ingester", "ring", false, log, prometheus.NewPedanticRegistry())
			if err != nil {
				t.Fatal(err)
			}
			if err := services.StartAndAwaitRunning(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(30 * time.Second)
			for l.GetState() != ring.ACTIVE {
				if time.Now().After(deadline) {
					t.Fatalf("it is %s", l.GetState())
				}
				time.Sleep(5 * time.Millisecond)
			}
			tokens, err := ring.LoadTokensFromFile(file)
			if err != nil || len(tokens) != 16 {
				t.Errorf("the file holds %d tokens, %v; want 16", len(tokens), err)
			}
			if !log.has("error loading tokens from file") {
				t.Errorf("the log does not tell of it: %q", log.all)
			}
			if err := services.StopAndAwaitTerminated(t.Context(), l); err != nil {
				t.Error(err)
			}
		})
	}
}
