package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
)

// hangingStores are store-gateways, a process before them, and questions about blocks with their answers.
type hangingStores struct {
	shelves
	paths []string
	want  []string
}

// newHangingStores has a store-gateway for each of zones, which may be empty, all of them owners of every block.
func newHangingStores(ctx context.Context, t *testing.T, zones []string, flags ...string) *hangingStores {
	t.Helper()
	s := &hangingStores{shelves: shelves{blocks: 12}}
	dir := t.TempDir()
	s.start = time.Now().Add(-time.Duration(s.blocks+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	s.end = s.start.Add(time.Duration(s.blocks) * 2 * time.Hour)
	smallBlocks(ctx, t, filepath.Join(dir, "blocks"), wideTenant, s.start, s.blocks)
	nodes := []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,compactor", Zone: zones[0]}}
	for i, zone := range zones {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprint("store-", i), Target: "store-gateway", Zone: zone})
	}
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Replicas: 1, Files: true, Nodes: nodes, Flags: append([]string{
		fmt.Sprintf("-store-gateway.sharding-ring.zone-awareness-enabled=%t", zones[0] != ""),
		fmt.Sprintf("-store-gateway.sharding-ring.replication-factor=%d", len(zones)),
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s", "-querier.timeout=2m",
	}, flags...)})
	s.base = s.Node("base")
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		_, err := os.Stat(filepath.Join(dir, "blocks", wideTenant, block.BucketIndexFile))
		return err
	}))
	s.seen(ctx, t, len(zones))
	return s
}

// learn asks the questions and keeps the answers.
func (s *hangingStores) learn(ctx context.Context, t *testing.T) {
	t.Helper()
	during := url.Values{"start": {seconds(s.start.UnixMilli())}, "end": {seconds(s.end.UnixMilli())}, "match[]": {"small"}}.Encode()
	s.paths = []string{"query_range?" + url.Values{"query": {"sum by (i) (sum_over_time(small[2h]))"}, "step": {"2h"},
		"start": {seconds(s.start.Add(2*time.Hour - time.Millisecond).UnixMilli())}, "end": {seconds(s.end.UnixMilli())}}.Encode(),
		"series?" + during, "labels?" + during, "label/i/values?" + during, "status/tsdb"}
	for i, n := range []int{3 * s.blocks, 3, 1, 1, 1} {
		r := s.read(ctx, t, s.paths[i])
		text := []string{`"276"`, `"small"`, `["__name__","i"]`, `["0","1","2"]`, `{"name":"small","value":3}`}[i]
		if r.status != http.StatusOK || strings.Count(r.body, text) != n {
			t.Fatalf("%s answered %s, want %d times %s", s.paths[i], r, n, text)
		}
		s.want = append(s.want, r.body)
	}
}

func (s *hangingStores) read(ctx context.Context, t *testing.T, path string) reply {
	t.Helper()
	r, err := try(ctx, http.MethodGet, s.base.URL("/prometheus/api/v1/"+path), nil, "X-Scope-OrgID", wideTenant)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return r
}

// readAll asks all questions at once, and returns how long the slowest took.
func (s *hangingStores) readAll(ctx context.Context, t *testing.T, what string) time.Duration {
	t.Helper()
	begin := time.Now()
	var wg sync.WaitGroup
	for i, path := range s.paths {
		wg.Go(func() {
			if r := s.read(ctx, t, path); r.status != http.StatusOK || r.body != s.want[i] {
				t.Errorf("%s: %s answered %s, want %.300s", what, path, r, s.want[i])
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	t.Logf("%s: all was answered within %s", what, took.Round(time.Millisecond))
	return took
}

func (s *hangingStores) hedged(ctx context.Context, t *testing.T) float64 {
	t.Helper()
	return scrape(ctx, t, s.base.URL("/metrics"), "amphora_querier_storegateway_reads_hedged_total")
}

// twoHang freezes two of three, to which there are connections: those silent for 3 s are left for the next owners of their
// blocks, and these after another 3 s for the last ones.
func (s *hangingStores) twoHang(ctx context.Context, t *testing.T) {
	t.Helper()
	both := []*harness.Node{s.Node("store-0"), s.Node("store-1")}
	all(t, both, func(n *harness.Node) error { return n.Signal(syscall.SIGSTOP) })
	if took := s.readAll(ctx, t, "two hang"); took > 12*time.Second {
		t.Errorf("while two hung an answer took %s", took)
	}
	if took := s.readAll(ctx, t, "they are known to hang"); took > 12*time.Second {
		t.Errorf("when it was known that two hung an answer took %s", took)
	}
	all(t, both, func(n *harness.Node) error { return n.Signal(syscall.SIGCONT) })
	s.readAll(ctx, t, "they go on")
}

// TestAStoreGatewayThatHangsIsNotWaitedFor freezes one that is asked first, and asks everything that is in blocks.
func TestAStoreGatewayThatHangsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	for name, zones := range map[string][]string{"three zones": {"a", "b", "c"}, "two without zones": {"", ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t, 3*time.Minute)
			s := newHangingStores(ctx, t, zones)
			began := time.Now()
			s.learn(ctx, t)
			s.readAll(ctx, t, "at rest")
			stalled := time.Since(began) > 3*time.Second // by a machine that stands still healthy ones are silent as well
			if n := s.hedged(ctx, t); n != 0 && !stalled {
				t.Errorf("%g reads of healthy store-gateways were hedged", n)
			}
			asked := func(i int) int {
				page := call(ctx, t, http.MethodGet, s.Node(fmt.Sprint("store-", i)).URL("/metrics"), nil).body
				return metric(t, page, "amphora_bucket_store_series_request_duration_seconds_count")
			}
			if zones[0] != "" && asked(1)+asked(2) != 0 && !stalled {
				t.Error("healthy store-gateways of other zones were asked")
			}
			first := s.Node("store-0")
			must(t, first.Signal(syscall.SIGSTOP))
			if took := s.readAll(ctx, t, "one hangs"); took > 10*time.Second { // who waited for it would wait for 15
				t.Errorf("while one hung an answer took %s", took)
			}
			if n := s.hedged(ctx, t); n < float64(len(s.paths)) {
				t.Errorf("%g reads were hedged, want %d", n, len(s.paths))
			}
			s.readAll(ctx, t, "it is known to hang")
			must(t, first.Signal(syscall.SIGCONT))
			s.readAll(ctx, t, "it goes on")
			before := asked(0)
			patiently(ctx, t, "the one that hung to be asked again", func() error {
				if r := s.read(ctx, t, s.paths[0]); r.body != s.want[0] {
					t.Errorf("it goes on: answered %s", r)
				}
				if got := asked(0); got == before {
					return fmt.Errorf("it has answered %d times, as before", got)
				}
				return nil
			})
			if len(zones) > 2 {
				s.twoHang(ctx, t)
			}
		})
	}
}

// TestTheOnlyStoreGatewayThatHangsIsAnError says so within the time in which a dead connection is found.
func TestTheOnlyStoreGatewayThatHangsIsAnError(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	s := newHangingStores(ctx, t, []string{""})
	s.learn(ctx, t)
	must(t, s.Node("store-0").Signal(syscall.SIGSTOP))
	begin := time.Now()
	r := s.read(ctx, t, s.paths[0])
	t.Logf("after %s: %s", time.Since(begin).Round(time.Millisecond), r)
	if r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "too many store-gateways failed") || time.Since(begin) > 30*time.Second {
		t.Errorf("after %s: %s", time.Since(begin), r)
	}
	if n := s.hedged(ctx, t); n != 0 {
		t.Errorf("%g reads were hedged, and there is nobody else", n)
	}
	must(t, s.Node("store-0").Signal(syscall.SIGCONT))
	patiently(ctx, t, "it to answer again", func() error {
		if r := s.read(ctx, t, s.paths[0]); r.body != s.want[0] {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}
