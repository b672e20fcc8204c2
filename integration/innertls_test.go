package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// innerTLS is a cluster of which everything inside is by mutual TLS: HTTP, gRPC and gossip. Callers of its gateway
// say who they are.
type innerTLS struct {
	ca      *authority
	files   *shownFiles
	cluster *harness.Cluster
	gateway *harness.Node
	inner   []*harness.Node
}

// free is the header of a user who may do all.
var free = []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("AKIDFREE0001:free-secret-free")), "X-Scope-OrgID", "shop"}

// scraping is a user who may read the metrics of processes.
const scraping = `
      - name: scraper
        keys: [{id: AKIDSCRAPER1, secret: scraper-secret-scraper}]
        inline:
          all: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "amphora:Scrape", Resource: "*"}}
`

func startInnerTLS(ctx context.Context, t *testing.T) *innerTLS {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	dir := t.TempDir()
	x := &innerTLS{ca: newAuthority(t), files: &shownFiles{t: t, pair: filepath.Join(dir, "pair.pem"), root: filepath.Join(dir, "root.pem")}}
	x.files.believe(x.ca)
	x.files.show(x.ca, 2, time.Now().Add(time.Hour))
	pem, err := os.ReadFile(filepath.Join(x.ca.dir, "ca.pem"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	probe := &tls.Config{RootCAs: roots} // without a certificate, as Kubernetes asks
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1,
		Flags: slices.Concat(busyFlags(), x.files.flags(), []string{"-memberlist.tls-enabled", "-ruler.evaluation-delay-duration=0s", "-ruler.poll-interval=1s"}),
		Nodes: []harness.Spec{
			{Name: "services", Target: "ingester,store-gateway,distributor,querier,query-scheduler,query-frontend,compactor,control,alertmanager", Flags: x.served(), TLS: probe},
			{Name: "distributor-2", Target: "distributor", Flags: x.served(), TLS: probe},
		}})
	x.cluster, x.inner = c, c.Nodes()
	ruler, err := c.Add(harness.Spec{Name: "ruler", Target: "ruler", TLS: probe, Flags: append(x.served(), "-ruler.query-frontend.address="+c.Node("services").URL("/prometheus"))})
	must(t, err)
	x.inner = append(x.inner, ruler)
	file := filepath.Join(dir, "identities.yaml")
	must(t, os.WriteFile(file, []byte(heldIdentities+scraping), 0o600))
	up := []string{"distributor=" + c.Node("distributor-2").URL(""), "ruler=" + ruler.URL("")}
	for _, name := range []string{"distributor", "querier", "control", "compactor", "alertmanager"} {
		up = append(up, name+"="+c.Node("services").URL(""))
	}
	// It has settings of its own, which come before those of calls between processes.
	x.gateway, err = c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-auth.enabled", "-auth.identity-file=" + file,
		"-gateway.upstreams=" + strings.Join(up, ","), "-gateway.tls-cert-path=" + x.files.pair, "-gateway.tls-key-path=" + x.files.pair, "-gateway.tls-ca-path=" + x.files.root}})
	must(t, err)
	must(t, c.WaitReady(ctx))
	return x
}

// served are the flags of a process that answers members only.
func (x *innerTLS) served() []string {
	return []string{"-server.http-tls-cert-path=" + x.files.pair, "-server.http-tls-key-path=" + x.files.pair, "-server.http-tls-ca-path=" + x.files.root, "-server.http-tls-probes-without-certificate"}
}

// push writes a sample of a metric through the gateway.
func (x *innerTLS) push(ctx context.Context, metric string, at time.Time) (reply, error) {
	s := floats(at, 1, "__name__", metric)
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{s}}).Marshal()
	if err != nil {
		return reply{}, err
	}
	return try(ctx, http.MethodPost, x.gateway.URL("/api/v1/push"), snappy.Encode(nil, raw), append([]string{"Content-Encoding", "snappy", "Content-Type", typeV1}, free...)...)
}

// TestEverythingInsideIsByMutualTLS has clients use the parts of a cluster through its gateway, and strangers try the
// ports inside.
func TestEverythingInsideIsByMutualTLS(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	x := startInnerTLS(ctx, t)
	eventually(ctx, t, "pushes are taken", func() error {
		if r, err := x.push(ctx, "sold", time.Now()); err != nil || r.status != 200 {
			return fmt.Errorf("%s %w", r, err)
		}
		return nil
	})
	rule := "name: g\ninterval: 1s\nrules:\n- {record: sold_twice, expr: '2 * last_over_time(sold[10m])'}\n"
	if r := call(ctx, t, "POST", x.gateway.URL("/prometheus/config/v1/rules/n"), []byte(rule), free...); r.status != http.StatusAccepted {
		t.Fatalf("set a rule: %s", r)
	}
	within(ctx, t, "the rule, which is evaluated by the query-frontend, has a result", func() error {
		r, err := try(ctx, "GET", x.gateway.URL("/prometheus/api/v1/query?query=last_over_time(sold_twice%5B10m%5D)"), nil, free...)
		if err != nil || !strings.Contains(r.body, `"2"`) {
			return fmt.Errorf("%s %w", r, err)
		}
		return nil
	})
	if r := call(ctx, t, "GET", x.gateway.URL("/alertmanager/api/v2/status"), nil, free...); r.status != 200 {
		t.Errorf("the alertmanager: %s", r)
	}
	id := workspaceOf(ctx, t, x.gateway, "a")
	described := signedCall(ctx, t, keyOf("OWNER"), "GET", x.gateway.URL("/workspaces/"+id), "")
	if !strings.Contains(described.body, `"prometheusEndpoint":"http://`) {
		t.Errorf("the gateway is without TLS, so that the address of the workspace is, too: %s", described)
	}

	cert, key := x.ca.issue("member", "amphora", 7)
	other := newAuthority(t)
	theirs, theirKey := other.issue("stranger", "amphora", 7)
	member, nobody, stranger := x.ca.client(cert, key), x.ca.client("", ""), x.ca.client(theirs, theirKey)
	status := func(by *http.Client, url string) int {
		r, err := http.NewRequestWithContext(ctx, "GET", url, http.NoBody)
		must(t, err)
		r.Header.Set("X-Scope-OrgID", "shop")
		resp, err := by.Do(r)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, n := range x.inner {
		for _, c := range []struct {
			who  string
			by   *http.Client
			path string
			want int
		}{
			{"a member", member, "/metrics", 200}, {"a member", member, "/ready", 200},
			{"nobody", nobody, "/ready", 200}, {"nobody", nobody, "/metrics", 403}, {"nobody", nobody, "/config", 403}, {"nobody", nobody, "/prometheus/api/v1/query?query=sold", 403},
			{"a stranger", stranger, "/ready", 0}, {"a stranger", stranger, "/prometheus/api/v1/query?query=sold", 0},
		} {
			if got := status(c.by, n.URL(c.path)); got != c.want {
				t.Errorf("%s asks %s for %s: %d, want %d", c.who, n.Spec.Name, c.path, got, c.want)
			}
		}
		if got := status(http.DefaultClient, strings.Replace(n.URL("/ready"), "https:", "http:", 1)); got != 400 {
			t.Errorf("%s without TLS: %d", n.Spec.Name, got)
		}
	}
	// A gateway without a certificate finds the services, which refuse it.
	bare, err := x.cluster.Add(harness.Spec{Name: "bare", Target: "gateway", Flags: []string{
		"-gateway.upstreams=querier=" + x.cluster.Node("services").URL(""), "-gateway.tls-ca-path=" + x.files.root}})
	must(t, err)
	must(t, bare.WaitReady(ctx))
	if r := call(ctx, t, "GET", bare.URL("/prometheus/api/v1/query?query=sold"), nil, "X-Scope-OrgID", "shop"); r.status != 403 || !strings.Contains(r.body, "client certificate") {
		t.Errorf("through a gateway without a certificate: %s", r)
	}
}

// TestCertificatesOfInnerHTTPAreReplacedUnderLoad replaces those of the gateway and of the services, and the
// authority, while clients push and query without a pause.
func TestCertificatesOfInnerHTTPAreReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 5*time.Minute)
	x := startInnerTLS(ctx, t)
	eventually(ctx, t, "pushes are taken", func() error {
		if r, err := x.push(ctx, "sold", time.Now()); err != nil || r.status != 200 {
			return fmt.Errorf("%s %w", r, err)
		}
		return nil
	})
	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	const atOnce = 4 // clients
	first := make(chan string, 1)
	work := func(send func(context.Context) (reply, error)) {
		wg.Go(func() {
			for load.Err() == nil {
				var at sync.WaitGroup
				for range atOnce {
					at.Go(func() {
						r, err := send(ctx) // what was begun is finished
						done.Add(1)
						if err != nil || r.status != 200 {
							failed.Add(1)
							select {
							case first <- fmt.Sprint(r, " ", err):
							default:
							}
						}
					})
				}
				at.Wait()
			}
		})
	}
	work(func(ctx context.Context) (reply, error) { return x.push(ctx, "load", time.Now()) })
	work(func(ctx context.Context) (reply, error) {
		return try(ctx, "GET", x.gateway.URL("/prometheus/api/v1/query?query=sold"), nil, free...)
	})
	basic := []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("AKIDSCRAPER1:scraper-secret-scraper"))}
	reloads := func() float64 {
		data, err := harness.Get(ctx, x.gateway.URL("/metrics"), basic...)
		must(t, err)
		return sampleOf(string(data), `amphora_http_client_tls_reloads_total{client="gateway-upstreams",outcome="success"}`)
	}
	next := newAuthority(t)
	pem, err := os.ReadFile(filepath.Join(next.dir, "ca.pem"))
	must(t, err)
	x.cluster.Node("ruler").TLS.RootCAs.AppendCertsFromPEM(pem) // of the question whether it is ready
	for step, change := range []func(){
		func() { x.files.believe(x.ca, next) },
		func() { x.files.show(next, 3, time.Now().Add(time.Hour)) },
		func() { x.files.believe(next) },
	} {
		before := reloads()
		change()
		// Open connections stay. To the ruler, which no client calls, there must be another, for the gateway's questions.
		must(t, x.cluster.Node("ruler").Restart())
		must(t, x.cluster.Node("ruler").WaitReady(ctx))
		within(ctx, t, fmt.Sprintf("step %d: new connections use the changed files", step+1), func() error {
			if got := reloads(); got <= before {
				return fmt.Errorf("%g reloads", got)
			}
			return nil
		})
		pause(ctx, t, 2*time.Second) // so that the files of the next step differ in time, too
	}
	cert, key := next.issue("member", "amphora", 9)
	for _, n := range x.inner {
		within(ctx, t, n.Spec.Name+" shows what the new authority has given", func() error {
			r, err := next.client(cert, key).Get(n.URL("/ready"))
			if err != nil {
				return err
			}
			return r.Body.Close()
		})
	}
	stop()
	wg.Wait()
	t.Logf("%d requests, %d failed", done.Load(), failed.Load())
	if failed.Load() > 0 || done.Load() < 50 {
		t.Errorf("%d of %d requests failed; the first: %s", failed.Load(), done.Load(), <-first)
	}
	// One that begins now knows only the new files.
	must(t, x.gateway.Restart())
	must(t, x.gateway.WaitReady(ctx))
	if r, err := x.push(ctx, "sold", time.Now()); err != nil || r.status != 200 {
		t.Errorf("after a restart: %s %v", r, err)
	}
}

// sampleOf reads the value of a series of a page of metrics; 0: there is none.
func sampleOf(page, series string) (v float64) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			_, _ = fmt.Sscan(rest, &v)
		}
	}
	return v
}

// TestInnerHTTPChangesToTLSUnderLoad turns the listeners behind a gateway to TLS one after the other, while it calls
// them both ways. Reads notice nothing, and pushes are told nothing but to try again.
func TestInnerHTTPChangesToTLSUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	dir := t.TempDir()
	x := &innerTLS{ca: newAuthority(t), files: &shownFiles{t: t, pair: filepath.Join(dir, "pair.pem"), root: filepath.Join(dir, "root.pem")}}
	x.files.believe(x.ca)
	x.files.show(x.ca, 2, time.Now().Add(time.Hour))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: busyFlags(), Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,store-gateway"}, {Name: "front-1", Target: "distributor,querier"}, {Name: "front-2", Target: "distributor,querier"},
	}})
	var up []string
	fronts := c.Of("distributor")
	for _, n := range fronts {
		for _, service := range []string{"distributor", "querier"} {
			up = append(up, service+"="+n.URL(""), service+"="+strings.Replace(n.URL(""), "http:", "https:", 1))
		}
	}
	var err error
	x.gateway, err = c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-gateway.upstreams=" + strings.Join(up, ","),
		"-gateway.tls-cert-path=" + x.files.pair, "-gateway.tls-key-path=" + x.files.pair, "-gateway.tls-ca-path=" + x.files.root}})
	must(t, err)
	must(t, x.gateway.WaitReady(ctx))
	eventually(ctx, t, "pushes are taken", func() error {
		if r, err := x.push(ctx, "sold", time.Now()); err != nil || r.status != 200 {
			return fmt.Errorf("%s %w", r, err)
		}
		return nil
	})
	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]map[int]int{"push": {}, "read": {}}
	others := []string{}
	for name, send := range map[string]func(context.Context) (reply, error){
		"push": func(ctx context.Context) (reply, error) { return x.push(ctx, "load", time.Now()) },
		"read": func(ctx context.Context) (reply, error) {
			return try(ctx, "GET", x.gateway.URL("/prometheus/api/v1/query?query=sold"), nil, "X-Scope-OrgID", "shop")
		},
	} {
		for range 3 {
			wg.Go(func() {
				for load.Err() == nil {
					r, err := send(ctx) // what was begun is finished
					mu.Lock()
					seen[name][r.status]++
					if err != nil || r.status != 200 && r.status != 503 {
						others = append(others, fmt.Sprint(name, ": ", r, " ", err))
					}
					mu.Unlock()
				}
			})
		}
	}
	pem, err := os.ReadFile(x.files.root)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, n := range fronts {
		c.SetFlags(n, x.served()...)
		must(t, n.Process.Stop())
		n.TLS = &tls.Config{RootCAs: roots}
		must(t, n.Start())
		must(t, n.WaitReady(ctx))
		pause(ctx, t, time.Second) // less than what passes between two looks of the gateway
	}
	stop()
	wg.Wait()
	t.Logf("answers by status: %v", seen)
	if len(others) > 0 {
		t.Errorf("%d answers are other than 200 and 503, such as %s", len(others), others[0])
	}
	for name, by := range seen {
		if by[200] < 50 || name == "read" && by[503] > 0 { // processes that stop refuse pushes for another try
			t.Errorf("%s: %v", name, by)
		}
	}
	if r, err := x.push(ctx, "sold", time.Now()); err != nil || r.status != 200 {
		t.Errorf("with TLS everywhere: %s %v", r, err)
	}
}
