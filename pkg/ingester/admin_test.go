package ingester

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// call serves one request by h and returns status and trimmed body.
func call(h http.HandlerFunc, method, target, body string) (int, string) {
	w := httptest.NewRecorder()
	h(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func wantCall(t *testing.T, h http.HandlerFunc, method, target, body string, status int, answer string) {
	t.Helper()
	if code, got := call(h, method, target, body); code != status || got != answer {
		t.Errorf("%s %s: %d %q, want %d %q", method, target, code, got, status, answer)
	}
}

// ready waits until the ring entry is active.
func (s *site) ready(t testing.TB) {
	t.Helper()
	poll(t, "the ring entry to be active", func() bool { return s.CheckReady(context.Background()) == nil })
}

func TestReadyOnlyWhileServing(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.ready(t)
	if s.RingState() != ring.ACTIVE {
		t.Errorf("ring state %s", s.RingState())
	}
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	wantCall(t, s.ShutdownHandler, "GET", "/ingester/shutdown", "", 405, "")
	wantCall(t, s.ShutdownHandler, "POST", "/ingester/shutdown", "", 204, "")
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
	wantCall(t, s.FlushHandler, "POST", "/ingester/flush?tenant=t1&wait=true", "", 200, `{"blocks":1}`)
	if n1, n2 := shippedBlocksOf(t, s.bucket, "t1"), shippedBlocksOf(t, s.bucket, "t2"); n1 != 1 || n2 != 0 {
		t.Errorf("blocks shipped: %d, %d", n1, n2)
	}
	wantCall(t, s.FlushHandler, "POST", "/ingester/flush", "", 204, "")
	poll(t, "the flush in the background", func() bool { return shippedBlocksOf(t, s.bucket, "t2") == 1 })
	if code, _ := call(s.FlushHandler, "POST", "/ingester/flush?tenant=..", ""); code != 400 {
		t.Errorf("bad tenant: %d", code)
	}
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
	h := s.PrepareShutdownHandler
	wantCall(t, h, "GET", "/", "", 200, "unset")
	wantCall(t, h, "POST", "/", "", 204, "")
	wantCall(t, h, "GET", "/", "", 200, "set")
	wantCall(t, h, "PATCH", "/", "", 405, "")
	c := s.crashed(t, siteOptions{})
	wantCall(t, c.PrepareShutdownHandler, "GET", "/", "", 200, "set")
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
	wantCall(t, h, "DELETE", "/", "", 204, "")
	wantCall(t, h, "GET", "/", "", 200, "unset")
}

func TestReadOnlyAndUnregisterSwitches(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.ready(t)
	h := s.PrepareInstanceRingDownscaleHandler
	wantCall(t, h, "GET", "/", "", 200, `{"timestamp":0}`)
	if code, body := call(h, "POST", "/", ""); code != 200 || body == `{"timestamp":0}` {
		t.Errorf("POST: %d %s", code, body)
	}
	wantCall(t, h, "DELETE", "/", "", 200, `{"timestamp":0}`)
	h = s.UnregisterOnShutdownHandler
	wantCall(t, h, "GET", "/", "", 200, `{"unregister":true}`)
	wantCall(t, h, "PUT", "/", `{"unregister":false}`, 200, `{"unregister":false}`)
	wantCall(t, h, "GET", "/", "", 200, `{"unregister":false}`)
	wantCall(t, h, "DELETE", "/", "", 200, `{"unregister":true}`)
	if code, _ := call(h, "PUT", "/", `{}`); code != 400 {
		t.Errorf("empty body: %d", code)
	}
}

func TestPagesShowTenants(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
	if _, body := call(s.TenantsHandler, "GET", "/ingester/tenants", ""); !strings.Contains(body, `href="tsdb/t1"`) {
		t.Errorf("tenants: %s", body)
	}
	if _, err := s.Flush(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	for tenant, status := range map[string]int{"t1": 200, "t2": 404, "..": 400} {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("tenant", tenant)
		w := httptest.NewRecorder()
		s.TenantHandler(w, r)
		if w.Code != status || status == 200 && !strings.Contains(w.Body.String(), "Local blocks") {
			t.Errorf("%s: %d %s", tenant, w.Code, w.Body)
		}
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
