package app

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// workers runs a ring of four of which some are silent, but not forgotten.
func workers(t *testing.T, silent ...string) *ring.Ring {
	t.Helper()
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { closer.Close() })
	err := store.CAS(t.Context(), "ring", func(any) (any, bool, error) {
		d, g := ring.NewDesc(), ring.NewRandomTokenGeneratorWithSeed(7)
		for _, addr := range fourWorkers() {
			i := d.AddIngester(addr, addr, "", g.GenerateTokens(tokensPerCompactor, d.GetTokens()), ring.ACTIVE, time.Now(), false, time.Time{}, nil)
			i.Timestamp = time.Now().Unix()
			if slices.Contains(silent, addr) {
				i.Timestamp -= 7200
			}
			d.Ingesters[addr] = i
		}
		return d, true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var c ring.Config
	c.KVStore.Mock = store
	c.HeartbeatTimeout, c.ReplicationFactor = time.Hour, 1
	r, err := ring.NewWithStoreClientAndStrategy(c, "test", "ring", store, ring.NewIgnoreUnhealthyInstancesReplicationStrategy(), nil, log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), r) })
	return r
}

func fourWorkers() []string { return []string{"w-0", "w-1", "w-2", "w-3"} }

// owners are those who say that a piece of work is theirs.
func owners(t *testing.T, r *ring.Ring, id tenant.ID, size int, key string) (out []string) {
	t.Helper()
	for _, addr := range fourWorkers() {
		mine, err := ownsJob(r, addr, id, size, key)
		if err != nil {
			t.Fatalf("%s does not know whose %s is: %v", addr, key, err)
		}
		if mine {
			out = append(out, addr)
		}
	}
	return out
}

func TestTheWorkOfASilentCompactorIsTakenOverAndNoOtherMoves(t *testing.T) {
	all, some := workers(t), workers(t, "w-1", "w-2")
	moved := map[string]int{}
	for n := range 300 {
		key := fmt.Sprint("job-", n)
		before, after := owners(t, all, "t1", 0, key), owners(t, some, "t1", 0, key)
		if len(before) != 1 || len(after) != 1 || after[0] == "w-1" || after[0] == "w-2" {
			t.Fatalf("%s is the work of %v, and of %v when two are silent; want one each that is alive", key, before, after)
		}
		if before[0] != after[0] {
			if before[0] == "w-0" || before[0] == "w-3" {
				t.Fatalf("%s moved from %s, which is alive, to %s", key, before[0], after[0])
			}
			moved[after[0]]++
		}
	}
	if len(moved) != 2 {
		t.Errorf("work of the silent ones is done by %v, want both that are alive", moved)
	}
	if got := owners(t, some, "t1", 0, ""); !slices.Equal(got, []string{"w-0", "w-3"}) {
		t.Errorf("%v may have jobs, want those that are alive", got)
	}
}

func TestATenantWhoseCompactorsAreAllSilentIsWorkedOnByOthers(t *testing.T) {
	all, some := workers(t), workers(t, "w-1", "w-2")
	seen := map[bool]int{}
	for n := range 40 {
		id := tenant.ID(fmt.Sprint("t", n))
		before, after := owners(t, all, id, 1, "cleanup"), owners(t, some, id, 1, "cleanup")
		if len(before) != 1 || len(after) != 1 {
			t.Fatalf("tenant %s is cleaned up by %v, and by %v when two are silent; want one", id, before, after)
		}
		lost := before[0] == "w-1" || before[0] == "w-2"
		seen[lost]++
		if !lost && before[0] != after[0] {
			t.Errorf("tenant %s moved from %s, which is alive, to %s", id, before[0], after[0])
		}
		if may := owners(t, some, id, 1, ""); !slices.Contains(may, after[0]) {
			t.Errorf("tenant %s is cleaned up by %s, but only %v look at it", id, after[0], may)
		}
	}
	if len(seen) != 2 {
		t.Fatalf("tenants of silent and other compactors: %v", seen)
	}
}
