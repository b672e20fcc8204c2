package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// testRing runs a ring with n instances in so many zones; zones 0: without zones.
func testRing(t *testing.T, n, zones int) *ring.Ring {
	t.Helper()
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { closer.Close() })
	err := store.CAS(t.Context(), "ring", func(any) (any, bool, error) {
		d, g := ring.NewDesc(), ring.NewRandomTokenGeneratorWithSeed(int64(n+zones))
		for k := range n {
			zone := ""
			if zones > 0 {
				zone = fmt.Sprintf("zone-%d", k%zones)
			}
			d.AddIngester(fmt.Sprintf("i-%d", k), fmt.Sprintf("10.0.0.%d", k), zone, g.GenerateTokens(32, d.GetTokens()), ring.ACTIVE, time.Now(), false, time.Time{}, nil)
		}
		return d, true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var c ring.Config
	c.KVStore.Mock = store
	c.HeartbeatTimeout, c.ReplicationFactor, c.ZoneAwarenessEnabled, c.SubringCacheDisabled = time.Hour, 3, zones > 0, true
	r, err := ring.New(c, "test", "ring", log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), r) })
	return r
}

func TestPlaceOwnsWhatTheRingSendsHere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ instances, zones, shard int }{{2, 0, 0}, {3, 0, 0}, {7, 0, 0}, {7, 0, 4}, {6, 3, 0}, {9, 3, 6}, {7, 3, 0}, {4, 2, 0}, {8, 4, 0}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			r := testRing(t, c.instances, c.zones)
			shard := r.ShuffleShard("t1", c.shard)
			total := 0.0
			for k := range c.instances {
				id := fmt.Sprintf("i-%d", k)
				p := newPlaces(r, id, c.zones > 0, func(tenant.ID) int { return c.shard })
				place := p.of("t1")
				if place != p.of("t1") {
					t.Error("place changed although the ring did not")
				}
				for n := range 2000 {
					token := rnd.Uint32()
					switch {
					case n < 2:
						token = uint32(n) * ^uint32(0)
					case n < 200: // the edges of ranges
						d, _ := r.GetInstance(id)
						token = d.Tokens[n%len(d.Tokens)] + uint32(n/100) - 1
					}
					set, err := shard.Get(token, ring.WriteNoExtend, nil, nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					here := false
					for _, i := range set.Instances {
						here = here || i.Id == id
					}
					owns := place.Owned.IncludesKey(token)
					if place.Owned == nil { // not in the shard
						owns = false
					}
					if owns != here {
						t.Fatalf("%s owns token %d = %v, the ring says %v", id, token, owns, here)
					}
				}
				if shard.HasInstance(id) {
					total += float64(min(place.Copies, place.Ingesters)) / float64(place.Ingesters)
				}
			}
			if c.instances == c.zones*(c.instances/max(1, c.zones)) || c.zones == 0 {
				want := float64(min(3, c.instances))
				if c.zones > 0 {
					want = float64(min(3, c.zones))
				}
				if total < want-0.01 || total > want+0.01 {
					t.Errorf("shares of all ingesters sum up to %g, want the number of copies %g", total, want)
				}
			}
		})
	}
}

func TestAHeartbeatIsKnownAndMovesNoSeries(t *testing.T) {
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { closer.Close() })
	g := ring.NewRandomTokenGeneratorWithSeed(1)
	tokens, registered := g.GenerateTokens(8, nil), time.Now()
	beat := func(at time.Time) {
		t.Helper()
		err := store.CAS(t.Context(), "ring", func(any) (any, bool, error) {
			d := ring.NewDesc()
			d.AddIngester("i-0", "10.0.0.1", "", tokens, ring.ACTIVE, registered, false, time.Time{}, nil)
			i := d.Ingesters["i-0"]
			i.Timestamp = at.Unix()
			d.Ingesters["i-0"] = i
			return d, true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	beat(registered)
	var c ring.Config
	c.KVStore.Mock = store
	c.HeartbeatTimeout, c.ReplicationFactor, c.SubringCacheDisabled = time.Hour, 1, true
	r, err := ring.New(c, "test", "ring", log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), r) })
	in := newRegistered(r)
	if !in.learn() || in.known["i-0"].Timestamp != registered.Unix() {
		t.Fatalf("the first look: %+v", in.known)
	}
	later := registered.Add(10 * time.Minute)
	beat(later)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if in.learn() {
			t.Fatal("a heartbeat is taken for a change of who owns what")
		}
		if in.known["i-0"].Timestamp == later.Unix() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the heartbeat is still that of %d, want %d", in.known["i-0"].Timestamp, later.Unix())
		}
	}
}
