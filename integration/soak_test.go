package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// What a soak is told by: how long it takes, by which seed an earlier one went, and how long after an
// accident the next one comes, if the one before is over.
const (
	soakVariable  = "AMPHORA_TEST_SOAK"
	seedVariable  = "AMPHORA_TEST_SEED"
	everyVariable = "AMPHORA_TEST_EVERY"
)

// soak is a cluster to which things happen.
type soak struct {
	t     *testing.T
	c     *harness.Cluster
	store *harness.FaultProxy
	rnd   *rand.Rand
}

// accident is something that happens to a cluster and is over when do returns.
type accident struct {
	name string
	do   func(ctx context.Context, s *soak)
}

// accidents are what a cluster of three zones survives, and, in the end, one that stops all of it.
func accidents() []accident {
	return []accident{
		{"an ingester is killed", func(ctx context.Context, s *soak) { s.killed(ctx, []*harness.Node{s.any("ingester")}) }},
		{"a zone is killed", func(ctx context.Context, s *soak) { s.killed(ctx, inZone(s.c, string("abc"[s.rnd.IntN(3)]))) }},
		{"a zone is restarted", func(ctx context.Context, s *soak) {
			all(s.t, inZone(s.c, string("abc"[s.rnd.IntN(3)])), func(n *harness.Node) error { return errors.Join(n.Restart(), n.WaitReady(ctx)) })
		}},
		{"an ingester hangs", func(ctx context.Context, s *soak) { s.frozen(ctx, s.any("ingester")) }},
		{"a distributor is killed", func(ctx context.Context, s *soak) { s.killed(ctx, []*harness.Node{s.any("distributor")}) }},
		{"a querier is killed", func(ctx context.Context, s *soak) { s.killed(ctx, []*harness.Node{s.any("querier")}) }},
		{"the compactor is killed", func(ctx context.Context, s *soak) { s.killed(ctx, []*harness.Node{s.any("compactor")}) }},
		// Always the same one: what only two have, because the third was away, is gone with both their disks.
		{"an ingester loses its disk", func(ctx context.Context, s *soak) {
			n := s.c.Node("ingester-c")
			must(s.t, errors.Join(n.Kill(), os.RemoveAll(n.DataDir), n.Start(), n.WaitReady(ctx)))
		}},
		{"the object store is sick", func(ctx context.Context, s *soak) {
			s.store.Set(harness.Faults{Fail: 0.3, Lose: 0.1, Cut: 0.1})
			pause(ctx, s.t, s.while())
			s.store.Set(harness.Faults{})
		}},
		{"the object store is away", func(ctx context.Context, s *soak) {
			s.store.Set(harness.Faults{Down: true})
			pause(ctx, s.t, s.while())
			s.store.Set(harness.Faults{})
		}},
		{"an ingester ships all it has", func(ctx context.Context, s *soak) {
			// It may not get done: the object store has its own accidents.
			_, _ = try(ctx, http.MethodPost, s.any("ingester").URL("/ingester/flush"), nil)
		}},
		{"everything is killed", func(ctx context.Context, s *soak) {
			all(s.t, s.c.Nodes(), func(n *harness.Node) error { return n.Kill() })
			for _, n := range s.c.Nodes() {
				must(s.t, n.Start())
			}
			must(s.t, s.c.WaitReady(ctx))
		}},
	}
}

// newSoak starts a cluster, whose object store is seen through s.store.
func newSoak(ctx context.Context, t *testing.T, seed uint64) *soak {
	t.Helper()
	dir := t.TempDir()
	s3, err := harness.StartS3(ctx, harness.TestLog(t), filepath.Join(dir, "s3"), 0, "blocks")
	t.Cleanup(func() {
		if s3 != nil {
			must(t, s3.Stop())
		}
	})
	harness.Need(t, err)
	s := &soak{t: t, rnd: rand.New(rand.NewPCG(seed, 0))}
	s.store, err = harness.NewFaultProxy(s3.Endpoint)
	must(t, err)
	t.Cleanup(func() { must(t, s.store.Close()) })
	flags := append(s3.Flags("blocks"), "-blocks-storage.s3.endpoint="+s.store.Endpoint)
	// Without a compactor the bucket index is too old to be believed after an hour.
	nodes := append(harness.ThreeZones(), harness.Spec{Name: "compactor", Target: "compactor", Zone: "a"})
	s.c = harness.Start(ctx, t, harness.Options{Dir: dir, Binary: binary(ctx, t), Files: true, Nodes: nodes, Flags: append(flags, busyFlags()...)})
	settled(ctx, t, s.c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	return s
}

func (s *soak) any(target string) *harness.Node {
	nodes := s.c.Of(target)
	return nodes[s.rnd.IntN(len(nodes))]
}

// while is how long something is away.
func (s *soak) while() time.Duration { return time.Duration(2+s.rnd.IntN(6)) * time.Second }

func (s *soak) killed(ctx context.Context, nodes []*harness.Node) {
	all(s.t, nodes, func(n *harness.Node) error { return n.Kill() })
	pause(ctx, s.t, s.while())
	all(s.t, nodes, func(n *harness.Node) error { return errors.Join(n.Start(), n.WaitReady(ctx)) })
}

func (s *soak) frozen(ctx context.Context, n *harness.Node) {
	must(s.t, n.Signal(syscall.SIGSTOP))
	pause(ctx, s.t, s.while())
	must(s.t, n.Signal(syscall.SIGCONT))
}

// told is the length of time that a variable says.
func told(t *testing.T, variable string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// TestAccidentsAtRandomLoseNothing lets accidents happen to a cluster that is written to and read,
// one after the other, in an order that the seed decides. No answer ever lacks an acknowledged sample
// or has a wrong one, and afterwards all are there.
func TestAccidentsAtRandomLoseNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	length, every := told(t, soakVariable, 20*time.Second), told(t, everyVariable, 0)
	seed := rand.Uint64()
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("seed %d", seed)
	ctx := bounded(t, length+length/2+4*time.Minute)
	s := newSoak(ctx, t, seed)
	j := newJournal("team-a", frontDoor(ctx, s.c, "distributor"))
	writers, measured := pressed(ctx, t, j, min(time.Minute, length))
	j.resetGap()
	end := j.busy(ctx, writers, frontDoor(ctx, s.c, "querier"))
	memory := watched(ctx, s.c, length)
	// Logs of an hour at full load take minutes to replay, where all replay at once on a few cores.
	back := max(2*time.Minute, length/5)
	happened := map[string]int{}
	begin := time.Now()
	for n := 1; time.Since(begin) < length && !t.Failed(); n++ {
		pause(ctx, t, max(2*time.Second, time.Until(begin.Add(time.Duration(n)*every))))
		a := accidents()[s.rnd.IntN(len(accidents()))]
		happened[a.name]++
		acked, given := j.count()
		t.Logf("%s: %s; %d samples acknowledged, %d given up", time.Since(begin).Round(time.Second), a.name, acked, given)
		a.do(ctx, s)
		settledWithin(ctx, t, back, s.c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	}
	pause(ctx, t, 2*time.Second)
	a, m := end(), memory()
	m.report(t)
	if length >= 10*time.Minute {
		m.bounded(t)
	}
	acked, given := j.count()
	t.Logf("seed %d: %v: %d samples acknowledged, %d given up, longest gap %s, pushes %s; %d reads, %d failed, the slowest took %s",
		seed, happened, acked, given, j.gap(), &j.took, a.reads, a.failed, a.slowest.Round(time.Millisecond))
	if a.missing+a.wrong > 0 || a.reads == a.failed || acked == 0 {
		t.Errorf("seed %d: of %d reads %d failed; %d samples were missing and %d wrong; first: %s", seed, a.reads, a.failed, a.missing, a.wrong, a.first)
	}
	for _, q := range s.c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
		measured.verify(ctx, t, q.URL(""))
	}
}

// TestZonesDieAgainAndAgainAndLoseNothing kills a zone with all that runs in it, waits until it is
// back, and takes the next.
func TestZonesDieAgainAndAgainAndLoseNothing(t *testing.T) {
	t.Parallel()
	kills := rounds(t, 3)
	ctx := bounded(t, 2*time.Minute+time.Duration(kills)*20*time.Second)
	c, j, end := scaled(ctx, t)
	for k := range kills {
		pause(ctx, t, time.Second)
		zone := inZone(c, string("abc"[k%3]))
		all(t, zone, func(n *harness.Node) error { return n.Kill() })
		pause(ctx, t, time.Second)
		all(t, zone, func(n *harness.Node) error { return errors.Join(n.Start(), n.WaitReady(ctx)) })
		settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	}
	pause(ctx, t, 2*time.Second)
	a := end()
	acked, given := j.count()
	t.Logf("%d zone kills: %d samples acknowledged, %d given up, longest gap %s; %d reads, %d failed", kills, acked, given, j.gap(), a.reads, a.failed)
	if a.missing+a.wrong > 0 || a.reads == a.failed || given > 0 || acked == 0 {
		t.Errorf("of %d reads %d failed; %d samples were missing and %d wrong, %d given up; first: %s", a.reads, a.failed, a.missing, a.wrong, given, a.first)
	}
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}
