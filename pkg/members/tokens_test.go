package members

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"
)

// join adds a member with balanced tokens.
func join(d *ring.Desc, id, zone string, zones bool) {
	g := newBalancedTokens(id, zone, zones)
	g.seen = d.Ingesters
	d.AddIngester(id, id, zone, g.GenerateTokens(defaultTokens, d.GetTokens()), ring.ACTIVE, time.Now(), false, time.Time{}, nil)
}

// worst is the largest deviation of a member's share from the even one.
func worst(d *ring.Desc, zones int) float64 {
	even := float64(ringSize) * float64(zones) / float64(len(d.Ingesters))
	out := 0.0
	for _, owned := range d.CountTokens() {
		out = max(out, math.Abs(float64(owned)/even-1))
	}
	return out
}

func TestBalancedTokensSpreadLoadWithinFivePercent(t *testing.T) {
	for _, zones := range []int{1, 3} {
		t.Run(fmt.Sprint(zones, " zones"), func(t *testing.T) {
			d := ring.NewDesc()
			for n := range 30 {
				for z := range zones {
					join(d, fmt.Sprintf("%d-%d", z, n), strconv.Itoa(z), zones > 1)
				}
				if w := worst(d, zones); w > 0.05 {
					t.Errorf("%d in each zone: somebody has %.1f %% off an even share", n+1, 100*w)
				}
			}
			for n := 29; n > 3; n-- { // those that came last go first
				for z := range zones {
					d.RemoveIngester(fmt.Sprintf("%d-%d", z, n))
				}
				if w := worst(d, zones); w > 0.05 {
					t.Errorf("%d left in each zone: somebody has %.1f %% off an even share", n, 100*w)
				}
			}
		})
	}
}

func TestBalancedTokensAreDistinctAndSorted(t *testing.T) {
	d := ring.NewDesc()
	join(d, "a", "", false)
	g := newBalancedTokens("b", "", false)
	g.seen = d.Ingesters
	taken := d.GetTokens()
	got := g.GenerateTokens(2000, taken)
	if len(got) != 2000 || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != 2000 {
		t.Errorf("%d tokens, sorted %v", len(got), slices.IsSorted(got))
	}
	for _, x := range got {
		if slices.Contains(taken, x) {
			t.Errorf("token %d is taken", x)
		}
	}
	if len(g.GenerateTokens(0, taken))+len(g.GenerateTokens(-3, taken)) > 0 {
		t.Error("tokens that nobody asked for")
	}
}

func TestMembersOfAZoneJoinOneAfterTheOther(t *testing.T) {
	now := time.Now()
	d := desc(now, "a z1 PENDING 1s", "b z1 PENDING 1s", "c z2 PENDING 1s", "d z1 PENDING 40s", "e z1 ACTIVE 1s")
	for id, want := range map[string]bool{"a": true, "b": false, "c": true} {
		g := newBalancedTokens(id, d.Ingesters[id].Zone, true)
		if g.CanJoin(d.Ingesters) == nil {
			t.Errorf("%s joins at its first look", id)
		}
		if err := g.CanJoin(d.Ingesters); (err == nil) != want {
			t.Errorf("%s: %v, want it to join: %v", id, err, want)
		}
	}
}
