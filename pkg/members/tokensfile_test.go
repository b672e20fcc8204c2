package members

import (
	"context"
	"log/slog"
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
			// The lifecycler says that it is active before it writes the file, and tells the ring after that.
			deadline := time.Now().Add(30 * time.Second)
			for {
				d, err := load(t.Context(), store, "ring")
				if err == nil && d.Ingesters["a"].State == ring.ACTIVE && len(d.Ingesters["a"].Tokens) > 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("it is %s, and the ring has %v, %v", l.GetState(), d, err)
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

func TestTokensOfALivingMemberAreSetAside(t *testing.T) {
	for _, c := range []struct {
		name, members string
		aside         bool
	}{
		{"of a copied disk", "a a ACTIVE 1s, b b ACTIVE 1s", true},
		{"of who is gone", "a a ACTIVE 2m, b b ACTIVE 1s", false},
		{"of who stopped", "a a LEAVING 1s, b b ACTIVE 1s", false},
		{"its own", "x x ACTIVE 1s, b b ACTIVE 1s", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper(t, true)
			k.set(t, strings.Split(c.members, ", ")...)
			d, err := load(t.Context(), k.store, "ring")
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(c.members, " ")
			tokens := ring.Tokens(d.Ingesters[first].Tokens)
			file := filepath.Join(t.TempDir(), "tokens")
			if err := tokens.StoreToFile(file); err != nil || len(tokens) == 0 {
				t.Fatalf("%v, %d tokens", err, len(tokens))
			}
			claim := Claim{KV: k.store, Key: "ring", ID: "x", Addr: "x:1", Timeout: time.Minute, Tokens: file, Log: slog.New(slog.NewTextHandler(k.logged, nil)),
				Answers: func(context.Context, string) bool { return false }}
			if err := claim.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err = os.Stat(file)
			if aside := os.IsNotExist(err); aside != c.aside {
				t.Errorf("set aside: %v, want %v", aside, c.aside)
			}
			if told := strings.Contains(k.logged.String(), "another ingester"); told != c.aside {
				t.Errorf("told: %v, want %v:\n%s", told, c.aside, k.logged)
			}
		})
	}
}
