package ha

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/seeds"
)

// TestAtAnyScheduleOneReplicaIsStoredAndThereIsNoLongGap has two replicas of a Prometheus send to any of
// some distributors, while each of the two goes away and comes back, and gossip takes a while. Only
// when the one that is stored was away is it the other's turn, and while one of them sends there is no
// longer gap than the policy makes. The policy waits for longer than a replica's signs of life take from
// one distributor to the others: the time between two of them, until they are shared, and gossip.
func TestAtAnyScheduleOneReplicaIsStoredAndThereIsNoLongGap(t *testing.T) {
	const every = 15 * time.Second
	seeds.Run(t, 5, func(t *testing.T, rnd *rand.Rand) {
		w := newWorld(t, 1+rnd.IntN(3))
		w.pol.Failover = 45 * time.Second
		for _, n := range w.nodes {
			n.skew = time.Duration(rnd.IntN(120)-60) * time.Second
		}
		slow := time.Duration(1+rnd.IntN(3)) * time.Second // of gossip
		away := map[string]int{}                           // for so many rounds more
		missed := map[string]int{}                         // in which round it was away last
		last := ""
		gapFrom := w.clock
		var steps []string
		for round := range 150 {
			both := 0
			for _, r := range []string{"a", "b"} {
				if away[r] > 0 {
					away[r]--
				} else if both == 0 && rnd.IntN(20) == 0 {
					away[r] = 1 + rnd.IntN(12)
				}
				if away[r] > 0 {
					both++
				}
			}
			if both == 2 {
				away["a"] = 0
			}
			for _, r := range []string{"a", "b"} {
				w.pass(time.Duration(1+rnd.IntN(2)) * time.Second)
				if away[r] > 0 {
					missed[r] = round
					continue
				}
				n := rnd.IntN(len(w.nodes))
				got := w.nodes[n].push("c/" + r)
				steps = append(steps, fmt.Sprintf("%s %s to %d: %s", w.clock.Format("04:05"), r, n, got))
				if got != "stored" {
					continue
				}
				if last != "" && r != last && round > 1 && round-missed[last] > 5 {
					t.Fatalf("round %d: %s is stored after %s, which was not away\n%v", round, r, last, steps[max(0, len(steps)-20):])
				}
				if gap := w.clock.Sub(gapFrom); gap > w.pol.Failover+w.pol.Update+w.pol.Jitter+2*every {
					t.Fatalf("round %d: nothing was stored for %s\n%v", round, gap, steps[max(0, len(steps)-20):])
				}
				last, gapFrom = r, w.clock
			}
			w.pass(slow)
			w.gossip()
			w.pass(every - 4*time.Second - slow)
			w.gossip()
		}
	})
}
