package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestObjectsOfATenantAreWrittenWithItsKey ships blocks, and changes rules and definitions, of a tenant
// with a key of its own and of one without: what is written for the first names its key, and nothing else does.
func TestObjectsOfATenantAreWrittenWithItsKey(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	dir := t.TempDir()
	s3, err := harness.StartS3(ctx, harness.TestLog(t), filepath.Join(dir, "s3"), 0, "blocks")
	t.Cleanup(func() {
		if s3 != nil {
			must(t, s3.Stop())
		}
	})
	harness.Need(t, err)
	written := &writings{by: map[string]string{}}
	proxy := httptest.NewServer(written.before(s3.Endpoint))
	t.Cleanup(proxy.Close)
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte(`overrides: {keyed: {s3_sse_type: SSE-KMS, s3_sse_kms_key_id: key-of-the-tenant, s3_sse_kms_encryption_context: '{"who":"keyed"}'}}`), 0o600))
	n := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: append(s3.Flags("blocks"),
		"-blocks-storage.s3.endpoint="+strings.TrimPrefix(proxy.URL, "http://"), "-runtime-config.file="+overrides,
		"-compactor.cleanup-interval=1s", "-alertmanager.persist-interval=1s", "-alertmanager.configs.poll-interval=1s")}).Nodes()[0]

	tenants := []string{"keyed", "other"}
	for _, id := range tenants {
		stored(t, pushV1(ctx, t, n.URL(""), id, floats(time.Now(), 1, "__name__", "m")))
		rules := []byte("name: g\nrules:\n- {record: 'a:b', expr: vector(1)}\n")
		for _, namespace := range []string{"stays", "goes"} {
			if r := call(ctx, t, http.MethodPost, n.URL("/prometheus/config/v1/rules/"+namespace), rules, "X-Scope-OrgID", id); r.status/100 != 2 {
				t.Fatalf("rules answered %s", r)
			}
		}
		if r := call(ctx, t, http.MethodDelete, n.URL("/prometheus/config/v1/rules/goes"), nil, "X-Scope-OrgID", id); r.status/100 != 2 {
			t.Fatalf("rules answered %s", r)
		}
		definition := []byte("alertmanager_config: |\n  receivers: [{name: none}]\n  route: {receiver: none}\n")
		if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/alerts"), definition, "X-Scope-OrgID", id); r.status != http.StatusCreated {
			t.Fatalf("definition answered %s", r)
		}
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	for _, id := range tenants {
		for _, part := range []string{"blocks/" + id + "/0", "/chunks/000001", "blocks/" + id + "/bucket-index.json.gz", "documents/rules/" + id + "/stays",
			"documents/rules/" + id + "/goes", "documents/alerts/" + id, "alertmanager/" + id + "/fullstate"} {
			harness.Need(t, harness.Poll(ctx, func(context.Context) error { return written.has(id, part) }))
		}
	}
	written.mu.Lock()
	defer written.mu.Unlock()
	for path, how := range written.by {
		want := "  "
		if strings.Contains(path+"/", "/keyed/") {
			want = `aws:kms key-of-the-tenant {"who":"keyed"}`
		}
		if how != want {
			t.Errorf("%s is written with %q, want %q", path, how, want)
		}
	}
}

// writings is how objects were written, by their path.
type writings struct {
	mu sync.Mutex // guards by
	by map[string]string
}

// before passes requests on to the server at endpoint and remembers those that write.
func (x *writings) before(endpoint string) http.Handler {
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: endpoint})
		r.Out.Host = r.In.Host // it is part of what is signed
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			context, _ := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Server-Side-Encryption-Context"))
			x.mu.Lock()
			x.by[r.URL.Path] = strings.Join([]string{r.Header.Get("X-Amz-Server-Side-Encryption"), r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"), string(context)}, " ")
			x.mu.Unlock()
		}
		forward.ServeHTTP(w, r)
	})
}

// has says whether something of the tenant was written whose path has part.
func (x *writings) has(tenant, part string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for path := range x.by {
		if strings.Contains(path, part) && strings.Contains(path+"/", "/"+tenant+"/") {
			return nil
		}
	}
	return fmt.Errorf("nothing of %s with %s was written", tenant, part)
}
