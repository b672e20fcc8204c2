package integration

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
)

// shelves are store-gateways of three zones, one process before them, and the blocks of two tenants of which
// one is on a shuffle shard of a store-gateway in each zone.
type shelves struct {
	*harness.Cluster
	base       *harness.Node
	start, end time.Time
	blocks     int
}

const (
	wideTenant   = "team-wide"
	narrowTenant = "team-narrow"
)

func newShelves(ctx context.Context, t *testing.T) *shelves {
	t.Helper()
	s := &shelves{blocks: 30}
	dir := t.TempDir()
	s.start = time.Now().Add(-time.Duration(s.blocks+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	s.end = s.start.Add(time.Duration(s.blocks) * 2 * time.Hour)
	for _, tenant := range []string{wideTenant, narrowTenant} {
		smallBlocks(ctx, t, filepath.Join(dir, "blocks"), tenant, s.start, s.blocks)
	}
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides:\n  "+narrowTenant+": {store_gateway_tenant_shard_size: 3}\n"), 0o600))
	nodes := []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,compactor", Zone: "a"}}
	for _, name := range []string{"store-a1", "store-a2", "store-b1", "store-b2", "store-c1", "store-c2"} {
		nodes = append(nodes, harness.Spec{Name: name, Target: "store-gateway", Zone: name[6:7]})
	}
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Replicas: 1, Files: true, Nodes: nodes, Flags: []string{
		"-store-gateway.sharding-ring.zone-awareness-enabled=true", "-runtime-config.file=" + overrides,
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s", "-querier.timeout=2m",
	}})
	s.base = s.Node("base")
	for _, tenant := range []string{wideTenant, narrowTenant} {
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			_, err := os.Stat(filepath.Join(dir, "blocks", tenant, block.BucketIndexFile))
			return err
		}))
	}
	s.seen(ctx, t, 6)
	return s
}

// seen waits until the querier knows of n store-gateways.
func (s *shelves) seen(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		r, err := try(ctx, http.MethodGet, s.base.URL("/metrics"), nil)
		if err != nil {
			return err
		}
		if got := metric(t, r.body, `amphora_ring_members\{name="store-gateway",state="ACTIVE"\}`); got != n {
			return fmt.Errorf("%d store-gateways are known, want %d", got, n)
		}
		return nil
	}))
}

// ask reads all samples of all blocks of a tenant.
func (s *shelves) ask(ctx context.Context, tenant string) (reply, error) {
	return try(ctx, http.MethodGet, s.base.URL("/prometheus/api/v1/query_range?"+url.Values{"query": {"sum by (i) (sum_over_time(small[2h]))"},
		"start": {seconds(s.start.Add(2*time.Hour - time.Millisecond).UnixMilli())}, "end": {seconds(s.end.UnixMilli())}, "step": {"2h"}}.Encode()),
		nil, "X-Scope-OrgID", tenant)
}

// whole asks and returns the answer, which has every sample.
func (s *shelves) whole(ctx context.Context, t *testing.T, tenant string) string {
	t.Helper()
	r, err := s.ask(ctx, tenant)
	must(t, err)
	// The samples of a block are 0 to 23, in each of three series.
	if r.status != http.StatusOK || strings.Count(r.body, `"276"`) != 3*s.blocks {
		t.Fatalf("tenant %s: the query answered %s, want %d points of 276", tenant, r, 3*s.blocks)
	}
	return r.body
}

// fetches is how often each store-gateway that runs read from blocks of a tenant in the bucket.
func (s *shelves) fetches(ctx context.Context, t *testing.T, tenant string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, n := range s.Of("store-gateway") {
		if n.PID() == 0 {
			continue
		}
		page := call(ctx, t, http.MethodGet, n.URL("/metrics"), nil).body
		if got := metric(t, page, `amphora_objstore_tenant_requests_total\{[^}]*operation="get_range",user="`+tenant+`"\}`); got > 0 {
			out[n.Spec.Name] = got
		}
	}
	return out
}

// settled asks until those of a zone that came back answer for all their blocks again, and returns what each
// store-gateway read until then. A querier dials one that was away anew after a pause, and until then others
// read blocks in its place.
func (s *shelves) settled(ctx context.Context, t *testing.T, zone []*harness.Node) map[string]int {
	t.Helper()
	var read map[string]int
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		before := s.fetches(ctx, t, wideTenant)
		s.whole(ctx, t, wideTenant)
		read = s.fetches(ctx, t, wideTenant)
		for _, n := range zone {
			if read[n.Spec.Name] == 0 {
				return fmt.Errorf("%s reads no block since it came back: %v", n.Spec.Name, read)
			}
		}
		if !maps.Equal(before, read) {
			return fmt.Errorf("blocks are still read from the bucket: %v, %v before", read, before)
		}
		return nil
	}))
	return read
}

// watched asks for both tenants all the time until the returned function is called, which fails the test if
// an answer was not that of want.
func (s *shelves) watched(ctx context.Context, want map[string]string) (answers *atomic.Int64, end func(t *testing.T)) {
	ctx, cancel := context.WithCancel(ctx)
	answers = new(atomic.Int64)
	var wg sync.WaitGroup
	wrong := make(chan string, len(want))
	for tenant, body := range want {
		wg.Go(func() {
			for ctx.Err() == nil {
				r, err := s.ask(ctx, tenant)
				switch {
				case ctx.Err() != nil:
				case err != nil:
					wrong <- fmt.Sprintf("tenant %s: %v", tenant, err)
					return
				case r.status != http.StatusOK || r.body != body:
					wrong <- fmt.Sprintf("tenant %s: answer %d is %s", tenant, answers.Load(), r)
					return
				default:
					answers.Add(1)
				}
			}
		})
	}
	return answers, func(t *testing.T) {
		t.Helper()
		cancel()
		wg.Wait()
		close(wrong)
		for text := range wrong {
			t.Error(text)
		}
	}
}

// TestAZoneOfStoreGatewaysDiesAndOneMoreComes kills all store-gateways of the zone that is asked first while
// queries go on, which see nothing of it, and then adds one, which reads the blocks that are its own now and
// causes no other to be read.
func TestAZoneOfStoreGatewaysDiesAndOneMoreComes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	s := newShelves(ctx, t)
	want := map[string]string{}
	for _, tenant := range []string{wideTenant, narrowTenant} {
		want[tenant] = s.whole(ctx, t, tenant)
	}
	read := s.fetches(ctx, t, wideTenant)
	if got := slices.Sorted(maps.Keys(read)); !slices.Equal(got, []string{"store-a1", "store-a2"}) {
		t.Errorf("%v read blocks of a tenant of all store-gateways, want both of the zone of the querier", read)
	}
	if read := s.fetches(ctx, t, narrowTenant); len(read) != 1 {
		t.Errorf("%v read blocks of a tenant whose shard has one store-gateway in each zone", read)
	}

	answers, end := s.watched(ctx, want)
	more := func(n int64) {
		t.Helper()
		from := answers.Load()
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			if got := answers.Load() - from; got < n {
				return fmt.Errorf("%d answers, want %d", got, n)
			}
			return nil
		}))
	}
	more(4)
	zone := slices.DeleteFunc(inZone(s.Cluster, "a"), func(n *harness.Node) bool { return n == s.base })
	all(t, zone, func(n *harness.Node) error { return n.Kill() })
	more(10)
	for _, n := range zone {
		must(t, n.Start())
	}
	for _, n := range zone {
		must(t, n.WaitReady(ctx))
	}
	more(4)
	end(t)
	narrow := s.fetches(ctx, t, narrowTenant)
	if len(narrow) > 3 {
		t.Errorf("%v read blocks of a tenant with a shard of 3", narrow)
	}
	t.Logf("%d answers; blocks of the tenant with a shard of 3 were read by %v", answers.Load(), narrow)

	before := s.settled(ctx, t, zone)
	added, err := s.Add(harness.Spec{Name: "store-a3", Target: "store-gateway", Zone: "a"})
	must(t, err)
	must(t, added.WaitReady(ctx))
	s.seen(ctx, t, 7)
	if got := s.whole(ctx, t, wideTenant); got != want[wideTenant] {
		t.Errorf("with one more the query answers %.500s", got)
	}
	after := s.fetches(ctx, t, wideTenant)
	moved := metric(t, call(ctx, t, http.MethodGet, added.URL("/metrics"), nil).body, `amphora_bucket_store_indexheader_lazy_load_total`)
	if moved == 0 || moved == s.blocks {
		t.Errorf("the new store-gateway opened %d of %d blocks, want its share", moved, s.blocks)
	}
	delete(after, "store-a3")
	if !maps.Equal(before, after) {
		t.Errorf("the others have read %v from the bucket, and %v before one more came", after, before)
	}
	again := s.fetches(ctx, t, wideTenant)
	s.whole(ctx, t, wideTenant)
	if got := s.fetches(ctx, t, wideTenant); !maps.Equal(got, again) {
		t.Errorf("what is on the disks was read again: %v requests, %v before", got, again)
	}
	t.Logf("%d of %d blocks moved to the new one", moved, s.blocks)
}
