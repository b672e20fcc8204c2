package ingester

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// ready waits until the ring entry is active.
func (s *site) ready(t testing.TB) {
	t.Helper()
	poll(t, "the ring entry to be active", func() bool { return s.CheckReady(context.Background()) == nil })
}

func TestReadyOnlyWhileServing(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.ready(t)
	if s.lifecycler.GetState() != ring.ACTIVE {
		t.Errorf("ring state %s", s.lifecycler.GetState())
	}
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckReady(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("ready after shutdown: %v", err)
	}
	if s.State() != services.Terminated {
		t.Errorf("state %s", s.State())
	}
	desc, err := s.lifecycler.KVStore.Get(t.Context(), RingKey)
	if d, ok := desc.(*ring.Desc); err != nil || ok && len(d.Ingesters) != 0 {
		t.Errorf("ring after shutdown: %v, %v", desc, err)
	}
	if n := shippedBlocksOf(t, s.bucket, "t1"); n != 1 {
		t.Errorf("%d blocks shipped", n)
	}
	// Nothing is left to read back.
	again := newSite(t, siteOptions{dir: s.dir, bucket: s.bucket})
	if n := again.counter(t, "amphora_ingester_memory_series"); n != 0 {
		t.Errorf("%g series read back after a flush", n)
	}
	equal(t, again.dump(t, "t1"), map[string]string{metric("m").String(): "0:1"})
}

func shippedBlocksOf(t testing.TB, b objstore.Bucket, tenant string) int {
	t.Helper()
	n := 0
	err := b.Iter(t.Context(), tenant+"/", func(name string) error {
		if ok, err := b.Exists(t.Context(), name+"meta.json"); err != nil {
			return err
		} else if ok {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFlushShipsNamedTenants(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	a.mustPush(t, "t2", point{metric("m"), base, 1})
	if job, err := s.Flush(t.Context(), []tenant.ID{"t1"}, true); job.Blocks != 1 || err != nil {
		t.Errorf("flush: %+v, %v", job, err)
	}
	if n1, n2 := shippedBlocksOf(t, s.bucket, "t1"), shippedBlocksOf(t, s.bucket, "t2"); n1 != 1 || n2 != 0 {
		t.Errorf("blocks shipped: %d, %d", n1, n2)
	}
	if _, err := s.Flush(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	poll(t, "the flush in the background", func() bool { return shippedBlocksOf(t, s.bucket, "t2") == 1 })
	if n := s.counter(t, "amphora_ingester_shipper_uploads_total"); n != 2 {
		t.Errorf("uploads counted: %g", n)
	}
}

func TestPreparedShutdownSurvivesACrashAndFlushes(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	if err := s.SetUnregisterOnShutdown(false); err != nil {
		t.Fatal(err)
	}
	if s.PreparedShutdown() {
		t.Error("prepared from the start")
	}
	if err := s.PrepareShutdown(true); err != nil || !s.PreparedShutdown() {
		t.Errorf("prepare: %v, then %v", err, s.PreparedShutdown())
	}
	c := s.crashed(t, siteOptions{})
	if !c.PreparedShutdown() {
		t.Error("a crash forgot that a shutdown was prepared")
	}
	if !c.UnregistersOnShutdown() {
		t.Error("a prepared shutdown keeps the ring entry")
	}
	if err := services.StopAndAwaitTerminated(t.Context(), c.Ingester); err != nil {
		t.Fatal(err)
	}
	if n := shippedBlocksOf(t, s.bucket, "t1"); n != 1 {
		t.Errorf("%d blocks shipped", n)
	}
	if _, err := os.Stat(filepath.Join(c.dir, prepareShutdownFile)); !os.IsNotExist(err) {
		t.Errorf("the marker outlives the shutdown: %v", err)
	}
	if err := s.PrepareShutdown(false); err != nil || s.PreparedShutdown() {
		t.Errorf("take back: %v, then %v", err, s.PreparedShutdown())
	}
}

func TestReadOnlyAndUnregisterSwitches(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.ready(t)
	if !s.ReadOnlySince().IsZero() {
		t.Error("read-only from the start")
	}
	for _, on := range []bool{true, false} {
		if err := s.SetReadOnly(t.Context(), on); err != nil || s.ReadOnlySince().IsZero() == on {
			t.Errorf("set read-only %v: %v, then since %s", on, err, s.ReadOnlySince())
		}
	}
	for _, on := range []bool{false, true} {
		if err := s.SetUnregisterOnShutdown(on); err != nil || s.UnregistersOnShutdown() != on {
			t.Errorf("set unregister %v: %v, then %v", on, err, s.UnregistersOnShutdown())
		}
	}
}

func TestTenantsAreDescribed(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	if got := s.Tenants(); len(got) != 1 || got[0].Tenant != "t1" || got[0].Series != 1 {
		t.Errorf("tenants: %+v", got)
	}
	if _, err := s.Flush(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Tenant("t1"); err != nil || len(got.Blocks) != 1 || got.Blocks[0].Samples != 1 || got.Blocks[0].Shipped.IsZero() {
		t.Errorf("t1: %+v, %v", got, err)
	}
	if _, err := s.Tenant("t2"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("t2: %v", err)
	}
}

func TestADiskKnowsSinceWhenItIsComplete(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	since := s.completeSince.Load()
	if since == 0 {
		t.Fatal("a new disk says nothing")
	}
	if c := s.crashed(t, siteOptions{}); c.completeSince.Load() != since {
		t.Errorf("after a crash %d, want %d", c.completeSince.Load(), since)
	}
	names, err := s.LabelNames(tenant.Inject(t.Context(), "nobody"), &ingesterpb.LabelNamesRequest{})
	if err != nil || names.CompleteSince != since {
		t.Errorf("label names: %v, %v", names, err)
	}
	var said []int64
	q := &queryStream{ctx: tenant.Inject(t.Context(), "nobody"), each: func(m *ingesterpb.QueryResponse) error {
		said = append(said, m.CompleteSince)
		return nil
	}}
	if err := s.Query(everything(), q); err != nil || len(said) != 1 || said[0] != since {
		t.Errorf("a query of an unknown tenant answers %v, %v", said, err)
	}
}

// brokenBucket fails uploads while broken.
type brokenBucket struct {
	objstore.Bucket
	broken bool
}

func (b *brokenBucket) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	if b.broken {
		return errors.New("storage is down")
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

func TestBlocksStayUntilTheyAreShipped(t *testing.T) {
	b := &brokenBucket{Bucket: objstore.NewInMemBucket(), broken: true}
	s := newSite(t, siteOptions{bucket: b, change: func(c *Config) { c.BlockRetention = 0 }})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no waits between the tries
	if _, err := s.compact(t.Context(), s.all(), func(*tenantHead) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if err := s.shipNow(ctx, s.all()); err == nil {
		t.Fatal("shipped to a broken bucket")
	}
	s.reportBlocks(s.all())
	info, err := s.Tenant("t1")
	if err != nil || len(info.Blocks) != 1 || !info.Blocks[0].Shipped.IsZero() {
		t.Fatalf("%+v, %v", info, err)
	}
	if n := s.counter(t, "amphora_ingester_oldest_unshipped_block_timestamp_seconds"); n == 0 {
		t.Error("the unshipped block is not reported")
	}
	b.broken = false
	c := s.crashed(t, siteOptions{bucket: b, change: func(c *Config) { c.BlockRetention = 0 }})
	c.keepHouse(t.Context())
	if n := shippedBlocksOf(t, b, "t1"); n != 1 {
		t.Errorf("%d blocks shipped", n)
	}
	if info, err = c.Tenant("t1"); err != nil || len(info.Blocks) != 0 {
		t.Errorf("after the retention: %+v, %v", info, err)
	}
	if n := c.counter(t, "amphora_ingester_oldest_unshipped_block_timestamp_seconds"); n != 0 {
		t.Errorf("oldest unshipped block: %g", n)
	}
}

func TestStoppedIngesterRefuses(t *testing.T) {
	s := newSite(t, siteOptions{})
	if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	if res := s.OpenStream().Push(t.Context(), &frame.Frame{Tenant: "t1"}); res.Kind != errs.Unavailable {
		t.Errorf("push: %+v", res)
	}
	if _, err := s.AllTenantStats(t.Context(), nil); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("stats: %v", err)
	}
	if _, err := s.Flush(t.Context(), nil, true); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("flush: %v", err)
	}
}
