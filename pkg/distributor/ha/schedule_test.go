package ha

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/seeds"
)

const (
	scrape = 15 * time.Second // between two pushes of a replica, at most

	// recently is how many rounds after a replica was away another may still be elected for that: the
	// sign of life that it gives when it is back is shared and carried within two, but a distributor may
	// have heard the one before so much earlier that its patience ends first.
	recently = 5
)

// race is two replicas of a Prometheus that send to any of some distributors, and what must be true of
// it. Each distributor believes that elected is whom all agreed on when gossip came last, or whom it
// elected itself since: what another elected meanwhile it cannot know.
type race struct {
	*world
	rnd      *rand.Rand
	away     map[string]int // for so many rounds more
	missed   map[string]int // in which round it was away last
	believed []string       // by each distributor; "": nobody is elected
	storedAt time.Time      // when samples of any replica were stored last
	longest  time.Duration  // that nothing may be stored for
	unaware  int            // times that a replica was stored after another distributor elected its twin
	steps    []string
}

func newRace(t *testing.T, rnd *rand.Rand) *race {
	w := newWorld(t, 1+rnd.IntN(3))
	w.pol.Failover = 45 * time.Second
	chance := rand.New(rand.NewPCG(0, 0)) //nolint:gosec // Reproducible on purpose; of its own, so that schedules do not depend on it.
	for _, n := range w.nodes {
		n.skew = time.Duration(rnd.IntN(120)-60) * time.Second
		n.deps.Chance = chance.Int64N
	}
	return &race{world: w, rnd: rnd, away: map[string]int{}, missed: map[string]int{}, believed: make([]string, len(w.nodes)),
		storedAt: w.clock, longest: w.pol.Failover + w.pol.Update + w.pol.Jitter + 2*scrape}
}

func (r *race) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s\n%v", fmt.Sprintf(format, args...), r.steps[max(0, len(r.steps)-20):])
}

// leave has replicas go away for a while, but never both.
func (r *race) leave() {
	gone := 0
	for _, replica := range []string{"a", "b"} {
		if r.away[replica] > 0 {
			r.away[replica]--
		} else if gone == 0 && r.rnd.IntN(20) == 0 {
			r.away[replica] = 1 + r.rnd.IntN(12)
		}
		if r.away[replica] > 0 {
			gone++
		}
	}
	if gone == 2 {
		r.away["a"] = 0
	}
}

// send has replica push to one of the distributors.
func (r *race) send(round int, replica string) {
	n := r.rnd.IntN(len(r.nodes))
	got := r.nodes[n].push("c/" + replica)
	r.steps = append(r.steps, fmt.Sprintf("%s %s to %d: %s", r.clock.Format("04:05"), replica, n, got))
	elected := r.believed[n]
	switch {
	case got != "stored":
		if elected == replica || got != "elected is "+elected {
			r.fatalf("round %d: %s is refused where %q is elected: %s", round, replica, elected, got)
		}
		return
	case elected == replica:
		for _, other := range r.believed {
			if other != replica {
				r.unaware++
				break
			}
		}
	case elected != "" && round-r.missed[elected] > recently:
		r.fatalf("round %d: %s is elected after %s, which was not away", round, replica, elected)
	}
	r.believed[n] = replica
	if gap := r.clock.Sub(r.storedAt); gap > r.longest {
		r.fatalf("round %d: nothing was stored for %s", round, gap)
	}
	r.storedAt = r.clock
}

// agree brings everybody everything. Thereafter all believe one of those whom somebody believed.
func (r *race) agree() {
	r.gossip()
	var all string
	for i, n := range r.nodes {
		elected := ""
		for _, c := range n.Clusters() {
			elected = c.Replica
		}
		if i == 0 {
			all = elected
		}
		if elected != all {
			r.fatalf("gossip is done, and distributor %d believes %q, the first %q", i, elected, all)
		}
	}
	for i, before := range r.believed {
		if before == all {
			break
		}
		if i == len(r.believed)-1 {
			r.fatalf("gossip makes %q elected, of %q", all, r.believed)
		}
	}
	for i := range r.believed {
		r.believed[i] = all
	}
}

// TestAtAnyScheduleOneReplicaIsStoredAndThereIsNoLongGap has two replicas go away and come back, while
// clocks are wrong and gossip takes a while. Another replica is elected only if the elected one was
// away; once gossip has carried an election nobody stores any other replica; and while one of them sends
// there is no longer gap than the policy makes. The policy waits for longer than a replica's signs of
// life take from one distributor to the others: the time between two of them, until they are shared, and
// gossip.
func TestAtAnyScheduleOneReplicaIsStoredAndThereIsNoLongGap(t *testing.T) {
	seeds.Run(t, 20, func(t *testing.T, rnd *rand.Rand) { newRace(t, rnd).run() })
}

// TestAReplicaThatReturnsAsItIsReplacedIsStoredUntilGossipSaysSo repeats schedules in which a distributor
// gets samples of a replica in the second after another elected its twin.
func TestAReplicaThatReturnsAsItIsReplacedIsStoredUntilGossipSaysSo(t *testing.T) {
	for _, seed := range []uint64{11659126036470139745, 10262707313094579423} {
		r := newRace(t, rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // Reproducible on purpose.
		if r.run(); r.unaware == 0 {
			t.Errorf("schedule %d: no distributor was unaware of an election", seed)
		}
	}
}

func (r *race) run() {
	slow := time.Duration(1+r.rnd.IntN(3)) * time.Second // of gossip
	for round := range 150 {
		r.leave()
		for _, replica := range []string{"a", "b"} {
			r.pass(time.Duration(1+r.rnd.IntN(2)) * time.Second)
			if r.away[replica] > 0 {
				r.missed[replica] = round
				continue
			}
			r.send(round, replica)
		}
		r.pass(slow)
		r.agree()
		r.pass(scrape - 4*time.Second - slow)
		r.agree()
	}
}
