package app

import (
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestAListOfTenantsIsWholeWithoutAsManyIngestersAsReadsDoWithout: with three replicas one ingester, or one zone, may be
// silent; what lacks more may lack tenants, and is refused.
func TestAListOfTenantsIsWholeWithoutAsManyIngestersAsReadsDoWithout(t *testing.T) {
	for _, c := range []struct {
		name    string
		zones   bool
		silent  string // by their heartbeats
		missing string // did not answer
		want    bool
	}{
		{"all answer", false, "", "", true},
		{"one does not", false, "", "a1", true},
		{"one is silent", false, "a1", "a1", true},
		{"two do not", false, "", "a1 b1", false},
		{"one is silent, another does not answer", false, "a1", "a1 b1", false},
		{"a zone does not", true, "", "a1 a2", true},
		{"a zone is silent", true, "a1 a2", "a1 a2", true},
		{"of two zones one each", true, "", "a1 b1", false},
		{"one is silent, one of another zone does not answer", true, "a1", "a1 b1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ring.NewDesc()
			for n, id := range []string{"a1", "a2", "b1", "b2", "c1", "c2"} {
				age := time.Second
				if strings.Contains(c.silent, id) {
					age = 2 * time.Minute
				}
				at := time.Now()
				d.Ingesters[id] = ring.InstanceDesc{Id: id, Addr: id + ":1", Zone: id[:1], State: ring.ACTIVE, Tokens: []uint32{uint32(n + 1)},
					Timestamp: at.Add(-age).Unix(), RegisteredTimestamp: at.Add(-time.Hour).Unix()}
			}
			got := whole(ringWith(t, d, c.zones), strings.Fields(c.missing))
			if got != c.want {
				t.Errorf("whole: %t, want %t", got, c.want)
			}
			ids, err := idsOf(&admin.AllUsage{Tenants: []admin.TenantUsage{{Tenant: "t"}}, Missing: strings.Fields(c.missing), Whole: got})
			if c.want && (err != nil || len(ids) != 1 || ids[0] != tenant.ID("t")) || !c.want && errs.KindOf(err) != errs.Unavailable {
				t.Errorf("tenants: %v, %v", ids, err)
			}
		})
	}
}

// ringWith is a ring of three replicas.
func ringWith(t *testing.T, d *ring.Desc, zones bool) *ring.Ring {
	t.Helper()
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { _ = closer.Close() })
	if err := store.CAS(t.Context(), "ring", func(any) (any, bool, error) { return d, true, nil }); err != nil {
		t.Fatal(err)
	}
	r, err := ring.New(ring.Config{KVStore: kv.Config{Mock: store}, HeartbeatTimeout: time.Minute, ReplicationFactor: 3, ZoneAwarenessEnabled: zones}, "test", "ring", log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(t.Context(), r) })
	return r
}
