package ha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"strings"
	"testing"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/consul"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// world is some distributors with a clock. Each has a store of its own, as with gossip, and they
// learn what gossip brings them.
type world struct {
	t     *testing.T
	clock time.Time
	nodes []*node
	pol   Policy
}

type node struct {
	*Tracker
	w    *world
	skew time.Duration // of its clock
	reg  *prometheus.Registry
	kv   *countedStore
}

// countedStore counts changes, and can fail.
type countedStore struct {
	kv.Client
	changes int
	err     error
}

func (s *countedStore) CAS(ctx context.Context, key string, f func(any) (any, bool, error)) error {
	if s.err != nil {
		return s.err
	}
	return s.Client.CAS(ctx, key, func(in any) (any, bool, error) {
		out, retry, err := f(in)
		if out != nil {
			s.changes++
		}
		return out, retry, err
	})
}

func newWorld(t *testing.T, nodes int) *world {
	w := &world{t: t, clock: time.UnixMilli(1_700_000_000_000),
		pol: Policy{Update: 15 * time.Second, Jitter: 5 * time.Second, Failover: 30 * time.Second, MaxClusters: 3}}
	for range nodes {
		w.add()
	}
	return w
}

func (w *world) add() *node {
	store, closer := consul.NewInMemoryClient(Codec{}, gokitlog.NewNopLogger(), nil)
	w.t.Cleanup(func() { _ = closer.Close() })
	n := &node{w: w, reg: prometheus.NewPedanticRegistry(), kv: &countedStore{Client: store}}
	var err error
	n.Tracker, err = New(Deps{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Reg: n.reg, Store: n.kv,
		Now: func() time.Time { return w.clock.Add(n.skew) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes = append(w.nodes, n)
	return n
}

// learn brings n what gossip of from says.
func (n *node) learn(from *node) {
	n.w.t.Helper()
	keys, err := from.kv.List(context.Background(), keyPrefix)
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, key := range keys {
		v, err := from.kv.Get(context.Background(), key)
		if err != nil {
			n.w.t.Fatal(err)
		}
		if err := n.kv.Client.CAS(context.Background(), key, func(in any) (any, bool, error) {
			s := stateOf(in)
			change, err := s.Merge(v.(*State), false)
			if change == nil {
				return nil, false, err
			}
			return s, true, err
		}); err != nil {
			n.w.t.Fatal(err)
		}
		got, err := n.kv.Get(context.Background(), key)
		if err != nil {
			n.w.t.Fatal(err)
		}
		n.observeAll(got, live)
	}
}

// gossip brings everybody everything.
func (w *world) gossip() {
	for range 2 {
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a != b {
					a.learn(b)
				}
			}
		}
	}
}

// push says what becomes of a sample of cluster/replica of tenant t that n gets now.
func (n *node) push(who string) string {
	n.w.t.Helper()
	cluster, replica, _ := strings.Cut(who, "/")
	v, elected, err := n.Check(context.Background(), Sender{"t", cluster, replica}, &n.w.pol, func() time.Time { return n.w.clock })
	switch {
	case err != nil:
		return errs.KindOf(err).String()
	case v == Elected:
		return "stored"
	case v == TooManyClusters:
		return "too many"
	}
	return "elected is " + elected
}

// pass lets time pass, with the background work of every second.
func (w *world) pass(d time.Duration) {
	for range d / time.Second {
		w.clock = w.clock.Add(time.Second)
		for _, n := range w.nodes {
			n.share(context.Background(), n.deps.Now())
		}
	}
}

func (w *world) expect(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("at %s: %s, want %s", w.clock.Sub(time.UnixMilli(1_700_000_000_000)), got, want)
	}
}

func (n *node) changes() float64 {
	return testutil.ToFloat64(n.metrics.changes.WithLabelValues("t", "c"))
}

func TestOneReplicaOfEachClusterIsElected(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	w.expect(n.push("c/a"), "stored")
	w.expect(n.push("c/b"), "elected is a")
	w.expect(n.push("d/b"), "stored")
	w.expect(n.push("e/b"), "stored")
	w.expect(n.push("f/b"), "too many")
	w.expect(n.push("c/a"), "stored")
	if n.kv.changes != 3 {
		t.Errorf("%d changes of the store, want one for each cluster", n.kv.changes)
	}
	list := n.Clusters()
	if len(list) != 3 || list[0].Replica != "a" || list[0].Elections != 1 || !list[0].LastSeen.Equal(w.clock) || !list[0].FailoverDue.Equal(w.clock.Add(30*time.Second)) {
		t.Errorf("clusters = %+v", list)
	}
}

func TestASilentReplicaIsReplaced(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	w.expect(n.push("c/a"), "stored")
	w.pass(29 * time.Second)
	w.expect(n.push("c/b"), "elected is a")
	w.pass(time.Second)
	w.expect(n.push("c/b"), "stored")
	w.expect(n.push("c/a"), "elected is b")
	if n.changes() != 1 {
		t.Errorf("%g changes counted", n.changes())
	}
}

func TestFailoverCanAlsoWaitForNewerSamples(t *testing.T) {
	w := newWorld(t, 1)
	w.pol.SampleFailover = 40 * time.Second
	n := w.nodes[0]
	w.expect(n.push("c/a"), "stored")
	w.pass(35 * time.Second)
	w.expect(n.push("c/b"), "elected is a")
	w.pass(5 * time.Second)
	w.expect(n.push("c/b"), "stored")
}

// Each replica reaches only one distributor: what these tell each other keeps the elected one in
// office, and the store is changed no more often than need be.
func TestSignsOfLifeAreShared(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	w.expect(a.push("c/a"), "stored")
	w.gossip()
	for range 600 {
		w.pass(time.Second)
		w.expect(a.push("c/a"), "stored")
		w.expect(b.push("c/b"), "elected is a")
		w.gossip()
	}
	if n := a.kv.changes + b.kv.changes; n < 30 || n > 61 {
		t.Errorf("%d changes of the store in 10 minutes, want one in 10 to 20 s", n)
	}
	for i := 0; ; i++ { // a falls silent
		if w.pass(time.Second); b.push("c/b") == "stored" {
			if i < 10 || i > 40 {
				t.Errorf("failed over after %d s", i)
			}
			break
		}
		w.gossip()
	}
	w.gossip()
	w.expect(a.push("c/a"), "elected is b")
}

func TestDistributorsThatElectAtOnceAgree(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Hour, -time.Hour} {
		w := newWorld(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		b.skew = skew
		w.expect(a.push("c/a"), "stored")
		w.clock = w.clock.Add(time.Millisecond)
		w.expect(b.push("c/b"), "stored")
		w.gossip()
		elected := a.Clusters()[0].Replica
		changes := a.changes() + b.changes()
		for range 300 {
			w.pass(time.Second)
			for _, r := range []string{"a", "b"} {
				want := "elected is " + elected
				if r == elected {
					want = "stored"
				}
				w.expect(a.push("c/"+r), want)
				w.expect(b.push("c/"+r), want)
			}
			w.gossip()
		}
		if changes > 1 || a.changes()+b.changes() != changes {
			t.Errorf("skew %s: %g changes counted, then %g", skew, changes, a.changes()+b.changes())
		}
	}
}

func TestWrongClocksDoNotMakeReplicasFlap(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		w := newWorld(t, 2)
		a, b := w.nodes[0], w.nodes[1]
		b.skew = skew
		w.expect(a.push("c/a"), "stored")
		w.gossip()
		for range 600 { // each replica reaches only one distributor
			w.pass(time.Second)
			w.expect(a.push("c/a"), "stored")
			w.expect(b.push("c/b"), "elected is a")
			w.gossip()
		}
		w.pass(41 * time.Second)
		w.expect(b.push("c/b"), "stored")
		w.gossip()
		w.expect(a.push("c/a"), "elected is b")
		for range 60 { // and now only the other
			w.pass(time.Second)
			w.expect(b.push("c/b"), "stored")
			w.gossip()
			w.expect(a.push("c/a"), "elected is b")
		}
	}
}

func TestADistributorThatKnowsNothingYetUndoesNoElection(t *testing.T) {
	w := newWorld(t, 1)
	old := w.nodes[0]
	w.expect(old.push("c/a"), "stored")
	w.pass(time.Minute)
	w.expect(old.push("c/a"), "stored")
	fresh := w.add()
	w.expect(fresh.push("c/b"), "stored")
	w.gossip()
	w.expect(fresh.push("c/b"), "elected is a")
	w.expect(old.push("c/a"), "stored")
}

func TestARestartedDistributorReadsTheStore(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	w.expect(a.push("c/a"), "stored")
	w.pass(10 * time.Second)
	b.kv.Client = a.kv.Client
	if err := b.starting(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.expect(b.push("c/b"), "elected is a")
	w.pass(19 * time.Second)
	w.expect(b.push("c/b"), "elected is a")
	w.pass(time.Second) // the last sign of life in the store is 30 s old
	w.expect(b.push("c/b"), "stored")
}

func TestIdleClustersAreDeletedAndMayComeBack(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.nodes[0], w.nodes[1]
	w.expect(a.push("c/a"), "stored")
	a.Deduped("t", "c", 5)
	w.gossip()
	late := w.add() // hears of the election, and of the deletion only much later
	late.learn(a)
	w.pass(idleAfter - time.Second)
	a.cleanup(context.Background(), a.deps.Now())
	if len(a.Clusters()) != 1 {
		t.Fatal("deleted too early")
	}
	w.pass(time.Second)
	a.cleanup(context.Background(), a.deps.Now())
	b.learn(a)
	for i, n := range []*node{a, b} {
		if len(n.Clusters()) != 0 || len(n.counts) != 0 {
			t.Errorf("distributor %d still has %+v", i, n.Clusters())
		}
		if families, err := n.reg.Gather(); err != nil || strings.Contains(fmt.Sprint(families), `"c"`) {
			t.Errorf("distributor %d still has metrics: %v %v", i, families, err)
		}
	}
	a.learn(late) // which does not bring it back
	if len(a.Clusters()) != 0 {
		t.Errorf("an old election is back: %+v", a.Clusters())
	}
	w.expect(b.push("c/b"), "stored")
	w.gossip()
	w.expect(a.push("c/a"), "elected is b")
	w.expect(late.push("c/a"), "elected is b")
}

func TestAClusterThatNobodyWasElectedInIsForgotten(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	n.kv.err = errors.New("store is away")
	w.expect(n.push("c/a"), "unavailable")
	if n.cleanup(context.Background(), n.deps.Now()); len(n.clusters) != 0 {
		t.Errorf("clusters = %v", n.clusters)
	}
	n.kv.err = nil
	w.expect(n.push("c/a"), "stored")
}

func TestWithoutTheStoreTheElectedReplicaStaysInOffice(t *testing.T) {
	w := newWorld(t, 1)
	n := w.nodes[0]
	w.expect(n.push("c/a"), "stored")
	n.kv.err = errors.New("store is away")
	for range 120 {
		w.pass(time.Second)
		w.expect(n.push("c/a"), "stored")
		w.expect(n.push("c/b"), "elected is a")
	}
	w.pass(30 * time.Second)
	w.expect(n.push("c/b"), "unavailable")
	w.expect(n.push("c/a"), "stored")
	n.kv.err = nil
	w.expect(n.push("c/b"), "elected is a")
}

// TestDistributorsAgreeWhateverGossipDoes pushes at random, with gossip that is late, partial and
// repeated, clocks that are wrong and distributors that restart, and wants all to agree in the end.
func TestDistributorsAgreeWhateverGossipDoes(t *testing.T) {
	for seed := range int64(8) {
		r := rand.New(rand.NewSource(seed))
		w := newWorld(t, 4)
		for _, n := range w.nodes {
			n.skew = time.Duration(r.Intn(120)-60) * time.Second
		}
		for range 500 {
			w.pass(time.Duration(r.Intn(20)) * time.Second)
			w.nodes[r.Intn(4)].push("c/" + string(rune('a'+r.Intn(3))))
			for range r.Intn(3) {
				w.nodes[r.Intn(4)].learn(w.nodes[r.Intn(4)])
			}
			if r.Intn(100) == 0 {
				n := w.nodes[r.Intn(4)]
				n.cleanup(context.Background(), n.deps.Now())
			}
		}
		w.gossip()
		first := w.nodes[0].Clusters()
		for i, n := range w.nodes {
			if got := n.Clusters(); len(got) != len(first) || len(got) > 0 && (got[0].Replica != first[0].Replica || got[0].Elections != first[0].Elections) {
				t.Errorf("seed %d: distributor %d has %+v, the first %+v", seed, i, got, first)
			}
		}
	}
}
