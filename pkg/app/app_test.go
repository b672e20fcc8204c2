package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

func load(t *testing.T, args ...string) (Config, *config.Set, error) {
	t.Helper()
	var c Config
	set := config.NewSet()
	set.Mount("", &c)
	_, err := config.Load(set, args, func(string) string { return "" })
	return c, set, err
}

func TestMistakesAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"-target=ingester -memberlist.bind-addr=0.0.0.0": "memberlist.bind_addr",
		"-target=ingestor":                                          "unknown target",
		"-target=ingester -kvstore.store=etcd":                      "kvstore.etcd.endpoints",
		"-kvstore.store=etcd -kvstore.etcd.endpoints=10.0.0.1:2379": "without encryption",
		"-kvstore.store=etcd -kvstore.etcd.endpoints=10.0.0.1":      "host:port",
		"-server.http-listen-address=0.0.0.0":                       "unsafe",
		"-ingester.ring.zone-awareness-enabled=true":                "instance_availability_zone",
		"-ingester.ring.replication-factor=0":                       "replication_factor",
		"-ingester.ring.heartbeat-timeout=1s":                       "heartbeat_timeout",
		"-distributor.ring.heartbeat-timeout=1s":                    "distributor.ring.heartbeat_timeout",
		"-ingester.ring.auto-forget-unhealthy-periods=-1":           "auto_forget_unhealthy_periods",
		"-ingester.ring.num-tokens=0":                               "num_tokens",
		"-ingester.ring.token-generation-strategy=fair":             "balanced",
		"-distributor.remote-timeout=soon":                          "remote",
		"-blocks-storage.backend=s3":                                "s3",
		"-metrics.namespace=9":                                      "namespace",
		"-runtime-config.reload-period=1ms":                         "period",
		"-no-such-flag":                                             "no-such-flag",
		"-target=distributor -distributor.ha-tracker.enable=true -distributor.ha-tracker.failover-timeout=20s": "must be at least 21s",
		"-auth.multitenancy-enabled=false -auth.no-auth-tenant=a/b":                                            "tenant",
	} {
		if _, _, err := load(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", args, err, want)
		}
	}
}

// TestSpreadMinimizingNeedsNumbersAndZones looks at an ingester; other processes may have the same
// settings file.
func TestSpreadMinimizingNeedsNumbersAndZones(t *testing.T) {
	const strategy = "-ingester.ring.token-generation-strategy=spread-minimizing "
	const zones = "-ingester.ring.spread-minimizing-zones=a,b,c -ingester.ring.instance-availability-zone=b "
	const id = "-ingester.ring.instance-id=ingester-zone-b-7 "
	for args, want := range map[string]string{
		id: "ingester.ring.spread_minimizing_zones",
		id + "-ingester.ring.spread-minimizing-zones=a,b,c -ingester.ring.instance-availability-zone=d": "ingester.ring.instance_availability_zone",
		id + zones + "-ingester.ring.tokens-file-path=x":                                                "ingester.ring.tokens_file_path",
		zones + "-ingester.ring.instance-id=ingester":                                                   "ingester-zone-a-0",
		id + zones: "",
		id + zones + "-ingester.ring.spread-minimizing-join-ring-in-order": "",
	} {
		_, _, err := load(t, strings.Fields("-target=ingester "+strategy+args)...)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
	if _, _, err := load(t, strings.Fields("-target=querier "+strategy)...); err != nil {
		t.Error(err)
	}
}

func TestTargetsResolve(t *testing.T) {
	for names, want := range map[string]string{
		"all": "ingester store-gateway distributor query-scheduler querier query-frontend compactor ruler alertmanager scraper control", "backend": "store-gateway compactor ruler alertmanager scraper control", "write": "ingester distributor", "read": "store-gateway query-scheduler querier query-frontend",
		"querier,ingester": "ingester querier", "write,distributor": "ingester distributor",
	} {
		ts, err := resolve(strings.Split(names, ","))
		var got []string
		for _, n := range ts {
			got = append(got, n.name)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v; want %s", names, got, err, want)
		}
	}
	for _, d := range targetDocs {
		if d.doc == "" || d.group == nil && builders()[d.name] == nil {
			t.Errorf("target %s: no doc or no builder", d.name)
		}
	}
}

func TestAloneMeansOneReplica(t *testing.T) {
	for args, want := range map[string]int{
		"": 1, "-memberlist.join=127.0.0.1:1": 3, "-target=ingester": 3, "-kvstore.store=etcd -kvstore.etcd.endpoints=127.0.0.1:2379": 3,
		"-target=write,read,backend": 1, "-target=querier -ingester.ring.replication-factor=2": 2,
	} {
		c, _, err := load(t, strings.Fields(args)...)
		if err != nil || c.replicationFactor() != want {
			t.Errorf("%q: %d replicas, %v; want %d", args, c.replicationFactor(), err, want)
		}
	}
}

// process is one that a test runs in itself.
type process struct {
	*App
	stop func() error
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	// How full the disk of the machine is that runs the tests is not their business.
	c, set, err := load(t, append([]string{"-server.http-listen-port=0", "-server.grpc-listen-port=0", "-ingester.min-free-disk-space-ratio=0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(c, set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	p := &process{App: a, stop: func() error { cancel(); return <-ended }}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if code, body := p.get(t, "/ready", ""); code == http.StatusOK {
			return p
		} else if time.Now().After(deadline) {
			t.Fatalf("not ready: %d %s", code, body)
		}
		select {
		case err := <-ended:
			t.Fatalf("ended while starting: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *process) get(t *testing.T, path, tenant string) (int, string) {
	t.Helper()
	return p.do(t, http.MethodGet, path, tenant, nil)
}

func (p *process) do(t *testing.T, method, path, tenant string, body []byte) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+p.httpAddr()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if tenant != "" {
		r.Header.Set("X-Scope-OrgID", tenant)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func pushBody(t *testing.T, name string, value float64) []byte {
	t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}},
		Samples: []prompb.Sample{{Value: value, Timestamp: time.Now().UnixMilli()}},
	}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

func TestOneProcessTakesKeepsAndAnswers(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // where the other parts keep theirs
	args := []string{"-ingester.data-dir=" + dir + "/ingester", "-blocks-storage.filesystem.dir=" + dir + "/blocks",
		"-blocks-storage.bucket-store.sync-dir=" + dir + "/sync",
		// The ring in memory outlives the first process, which had another port.
		"-ingester.ring.unregister-on-shutdown=true"}
	p := start(t, args...)
	if code, body := p.do(t, http.MethodPost, "/api/v1/push", "a", pushBody(t, "m", 42)); code != http.StatusOK {
		t.Fatalf("push: %d %s", code, body)
	}
	const query = "/prometheus/api/v1/query?query=sum(m)"
	want := func(p *process, tenant, text string) {
		t.Helper()
		if code, body := p.get(t, query, tenant); code != http.StatusOK || !strings.Contains(body, text) {
			t.Errorf("query as %s: %d %s, want %s", tenant, code, body, text)
		}
	}
	want(p, "a", `"42"`)
	want(p, "b", `"result":[]`)
	for path, text := range map[string]string{
		"/services": "ingester", "/config": "target", "/ingester/ring": "ACTIVE", "/distributor/ring": "ACTIVE",
		"/metrics": "amphora_config_hash", "/ingester/tenants": "a", "/distributor/all_user_stats": "a", "/": "Amphora",
	} {
		if code, body := p.get(t, path, ""); code != http.StatusOK || !strings.Contains(body, text) {
			t.Errorf("%s: %d, %q not in the answer", path, code, text)
		}
	}
	if code, _ := p.get(t, "/api/v1/user_stats", "a"); code != http.StatusOK {
		t.Errorf("user_stats: %d", code)
	}
	if err := p.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	again := start(t, args...)
	want(again, "a", `"42"`)
	if err := again.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

func TestTheRuntimeFileChangesInstanceLimits(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	file := dir + "/runtime.yaml"
	if err := os.WriteFile(file, []byte("ingester_limits: {max_tenants: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-ingester.data-dir="+dir+"/ingester", "-blocks-storage.filesystem.dir="+dir+"/blocks",
		"-blocks-storage.bucket-store.sync-dir="+dir+"/sync", "-runtime-config.file="+file)
	if code, body := p.do(t, http.MethodPost, "/api/v1/push", "a", pushBody(t, "m", 1)); code != http.StatusOK {
		t.Errorf("first tenant: %d %s", code, body)
	}
	if code, body := p.do(t, http.MethodPost, "/api/v1/push", "b", pushBody(t, "m", 1)); code != http.StatusServiceUnavailable || !strings.Contains(body, "err-amphora-ingester-max-tenants") {
		t.Errorf("second tenant: %d %s", code, body)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

func TestAPartThatCannotStartEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	p := start(t, "-ingester.data-dir="+dir, "-blocks-storage.filesystem.dir="+dir+"/blocks", "-blocks-storage.bucket-store.sync-dir="+dir+"/sync1")
	defer func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}()
	c, set, err := load(t, "-server.http-listen-port=0", "-server.grpc-listen-port=0", "-ingester.data-dir="+dir,
		"-blocks-storage.filesystem.dir="+dir+"/blocks", "-blocks-storage.bucket-store.sync-dir="+dir+"/sync2", "-alertmanager.storage.path="+dir+"/alerts2")
	if err != nil {
		t.Fatal(err)
	}
	second, err := New(c, set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(fmt.Sprint(err), "ingester") || errors.Is(err, context.Canceled) {
		t.Errorf("two processes on one data directory: %v", err)
	}
}

func TestAQueryHoldsNoMoreSamplesThanFitIntoMemory(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	c := Config{Memory: memory.Config{LimitBytes: 640_000_000}, Engine: engine.Config{MaxSamples: 50_000_000}}
	if n := c.engine().MaxSamples; n != 9_000_000 {
		t.Errorf("%d samples in 640 MB, want 9 million", n)
	}
	c.Memory.LimitBytes = 64_000_000_000
	if n := c.engine().MaxSamples; n != 50_000_000 {
		t.Errorf("%d samples in 64 GB, want the 50 million of the setting", n)
	}
}
