package bucket

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
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
	a := newAccounts(prometheus.NewRegistry())
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
