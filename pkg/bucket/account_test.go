package bucket

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

func TestRequestsAreCountedByCauseAndTenant(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := defaults()
	cfg.Filesystem.Dir = t.TempDir()
	b, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	own := objstore.NewPrefixedBucket(b, "team-a")
	if err := own.Upload(Because(t.Context(), Ship), "block/index", bytes.NewReader(make([]byte, 1000))); err != nil {
		t.Fatal(err)
	}
	if err := own.Upload(t.Context(), "block/meta.json", io.LimitReader(strings.NewReader("some text"), 4)); err != nil {
		t.Fatal(err)
	}
	r, err := own.GetRange(Because(t.Context(), Query), "block/index", 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil || r.Close() != nil {
		t.Fatal(err)
	}
	if err := b.Iter(t.Context(), "", func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP amphora_objstore_requests_total Requests to object storage by what they are made for. Retries of drivers are not seen.
# TYPE amphora_objstore_requests_total counter
amphora_objstore_requests_total{cause="other",component="test",operation="iter"} 1
amphora_objstore_requests_total{cause="other",component="test",operation="upload"} 1
amphora_objstore_requests_total{cause="query",component="test",operation="get_range"} 1
amphora_objstore_requests_total{cause="ship",component="test",operation="upload"} 1
# HELP amphora_objstore_tenant_requests_total Requests to object storage by whose objects they are about. At most 1000 tenants have figures of their own.
# TYPE amphora_objstore_tenant_requests_total counter
amphora_objstore_tenant_requests_total{component="test",operation="get_range",user="team-a"} 1
amphora_objstore_tenant_requests_total{component="test",operation="iter",user="__none__"} 1
amphora_objstore_tenant_requests_total{component="test",operation="upload",user="team-a"} 2
# HELP amphora_objstore_tenant_transferred_bytes_total Bytes read from and written to object storage by whose objects.
# TYPE amphora_objstore_tenant_transferred_bytes_total counter
amphora_objstore_tenant_transferred_bytes_total{component="test",direction="read",user="team-a"} 100
amphora_objstore_tenant_transferred_bytes_total{component="test",direction="write",user="team-a"} 1004
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "amphora_objstore_requests_total", "amphora_objstore_tenant_requests_total", "amphora_objstore_tenant_transferred_bytes_total"); err != nil {
		t.Error(err)
	}
}

func TestTenantsWithFiguresAreBounded(t *testing.T) {
	a := newAccounts(prometheus.NewRegistry(), Prices{})
	for i := range maxAccounts {
		if got := a.owner(fmt.Sprintf("tenant-%d/x", i)); got != fmt.Sprintf("tenant-%d", i) {
			t.Fatalf("owner %s", got)
		}
	}
	if got := a.owner("one-more/x"); got != manyTenants {
		t.Errorf("one more is counted as %s", got)
	}
	if got := a.owner("tenant-7/y"); got != "tenant-7" {
		t.Errorf("a known one is counted as %s", got)
	}
}

func TestRequestsCostWhatTheirPricesSay(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := defaults()
	cfg.Filesystem.Dir = t.TempDir()
	cfg.Prices = Prices{Read: 0.5, List: 4}
	b, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Upload(t.Context(), "team-a/x", strings.NewReader("text")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		r, err := b.Get(Because(t.Context(), Query), "team-a/x")
		if err != nil || r.Close() != nil {
			t.Fatal(err)
		}
	}
	if err := b.Iter(t.Context(), "", func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "team-a/x"); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP amphora_objstore_estimated_cost_total Estimated cost of requests to object storage by class and what they are made for, in the currency of blocks_storage.request_prices. Retries of drivers, parts of large uploads and pages of long listings are not seen.
# TYPE amphora_objstore_estimated_cost_total counter
amphora_objstore_estimated_cost_total{cause="other",class="list",component="test"} 0.004
amphora_objstore_estimated_cost_total{cause="query",class="read",component="test"} 0.002
# HELP amphora_objstore_tenant_estimated_cost_total Estimated cost of requests to object storage by class and whose objects they are about. At most 1000 tenants have figures of their own.
# TYPE amphora_objstore_tenant_estimated_cost_total counter
amphora_objstore_tenant_estimated_cost_total{class="list",component="test",user="__none__"} 0.004
amphora_objstore_tenant_estimated_cost_total{class="read",component="test",user="team-a"} 0.002
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "amphora_objstore_estimated_cost_total", "amphora_objstore_tenant_estimated_cost_total"); err != nil {
		t.Error(err)
	}
}

func TestPricesAreNotNegative(t *testing.T) {
	for _, p := range []Prices{{Read: -1}, {Write: math.NaN()}, {List: math.Inf(1)}} {
		if p.Validate() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
	if err := (&Prices{Read: 0.0004, List: 0.005}).Validate(); err != nil {
		t.Error(err)
	}
}
