package ha

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

// hands is a clock that a test moves.
type hands struct{ ms atomic.Int64 }

func (h *hands) now() time.Time       { return time.UnixMilli(h.ms.Load()) }
func (h *hands) move(d time.Duration) { h.ms.Add(d.Milliseconds()) }

// member starts a gossip member that joins others, and a tracker on it.
func member(t *testing.T, name string, clock *hands, join ...string) (tr *Tracker, addr string) {
	t.Helper()
	var cfg memberlist.KVConfig
	flagext.DefaultValues(&cfg)
	cfg.NodeName, cfg.RandomizeNodeName = name, false
	// It says at which port it listens.
	cfg.TCPTransport.BindAddrs, cfg.TCPTransport.BindPort, cfg.AdvertiseAddr, cfg.AdvertisePort = flagext.StringSlice{"127.0.0.1"}, 0, "", 0
	cfg.JoinMembers = join
	cfg.LeaveTimeout, cfg.BroadcastTimeoutForLocalUpdatesOnShutdown = time.Second, time.Second
	cfg.Codecs = []codec.Codec{Codec{}}
	reg := prometheus.NewRegistry()
	logger := gokitlog.NewNopLogger()
	store := memberlist.NewKV(cfg, logger, dns.NewProvider(dns.GolangResolverType, 0, logger, reg), reg)
	run(t, store)
	client, err := memberlist.NewClient(store, Codec{})
	if err != nil {
		t.Fatal(err)
	}
	if tr, err = New(Deps{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Reg: reg, Store: client, Now: clock.now}); err != nil {
		t.Fatal(err)
	}
	run(t, tr)
	return tr, fmt.Sprintf("127.0.0.1:%d", store.GetListeningPort())
}

func run(t *testing.T, s services.Service) {
	t.Helper()
	if err := services.StartAndAwaitRunning(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), s) })
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestGossipCarriesElections has time pass only when gossip has carried what was said before.
func TestGossipCarriesElections(t *testing.T) {
	pol := &Policy{Update: time.Second, Failover: 6 * time.Second, MaxClusters: 10}
	clock := &hands{}
	clock.ms.Store(time.Now().UnixMilli())
	a, addr := member(t, "a", clock)
	check := func(tr *Tracker, replica string) string {
		v, elected, err := tr.Check(t.Context(), Sender{"t", "c", replica}, pol, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		if v == Elected {
			return replica
		}
		return elected
	}
	if got := check(a, "r1"); got != "r1" {
		t.Fatalf("elected is %s", got)
	}
	b, _ := member(t, "b", clock, addr)
	await(t, "a distributor that joins knows the elected replica", func() bool { return len(b.Clusters()) == 1 })
	if got := check(b, "r2"); got != "r1" {
		t.Fatalf("a distributor that joined has elected %s", got)
	}
	// r1 reaches only a, r2 only b, for longer than the failover takes.
	for range 7 {
		clock.move(pol.Update)
		if got := check(a, "r1") + check(b, "r2"); got != "r1r1" {
			t.Fatalf("elected are %s", got)
		}
		await(t, "all know that r1 was heard", func() bool { return b.Clusters()[0].LastSeen.Equal(clock.now()) })
	}
	// Then r1 is silent.
	clock.move(pol.Failover - time.Millisecond)
	if got := check(b, "r2"); got != "r1" {
		t.Fatalf("before the failover %s is elected", got)
	}
	clock.move(time.Millisecond)
	if got := check(b, "r2"); got != "r2" {
		t.Fatalf("after the failover %s is elected", got)
	}
	await(t, "all know of r2", func() bool { return check(a, "r1") == "r2" })
	a.cleanup(t.Context(), clock.now().Add(2*idleAfter))
	await(t, "all know of the deletion", func() bool { return len(b.Clusters()) == 0 })
	if got := check(a, "r1"); got != "r1" {
		t.Errorf("after a deletion %s is elected", got)
	}
	await(t, "all know of the next election", func() bool { return check(b, "r2") == "r1" })
}
