package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestConfigurationIsCheckedBeforeAnythingRuns starts the command as an operator would mistype it.
func TestConfigurationIsCheckedBeforeAnythingRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	t.Parallel()
	ctx := bounded(t, time.Minute)
	path := binary(ctx, t)
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "amphora.yaml")
		must(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	for _, c := range []struct {
		name string
		args []string
		ok   bool
		want []string
	}{
		{"check", []string{"-config.check", "-config.file=" + file("server:\n  http_listen_port: 18080\n"), "-blocks-storage.s3.secret-access-key=planted-secret"}, true,
			[]string{"http_listen_port: 18080", "derived", "replication_factor"}},
		{"unknown key", []string{"-config.check", "-config.file=" + file("server:\n  http_listen_port: 1\n  http_listn_address: x\n")}, false,
			[]string{"amphora.yaml:3", `http_listn_address`, `did you mean "http_listen_address"?`}},
		{"wrong type", []string{"-config.check", "-config.file=" + file("server:\n  http_listen_port: many\n")}, false,
			[]string{"amphora.yaml:2", "server.http_listen_port"}},
		{"key twice", []string{"-config.check", "-config.file=" + file("target: all\ntarget: all\n")}, false, []string{"amphora.yaml:2", "target"}},
		{"no YAML", []string{"-config.check", "-config.file=" + file("server: [\n")}, false, []string{"amphora.yaml"}},
		{"no file", []string{"-config.check", "-config.file=missing.yaml"}, false, []string{"missing.yaml"}},
		{"unknown flag", []string{"-server.http-listen-prot=1"}, false, []string{"server.http-listen-prot", `did you mean`, "server.http-listen-port"}},
		{"bad value of a flag", []string{"-server.http-listen-port=many"}, false, []string{"server.http-listen-port", "many"}},
		{"unknown target", []string{"-target=ingestor"}, false, []string{"ingestor", "ingester"}},
		{"open to all", []string{"-server.http-listen-address=0.0.0.0"}, false,
			[]string{"server.http_listen_address", "-auth.unsafe-listen-without-authentication"}},
		{"gRPC open to all", []string{"-server.grpc-listen-address="}, false,
			[]string{"server.grpc_listen_address", "-auth.unsafe-listen-without-authentication"}},
		{"open to all, knowingly", []string{"-config.check", "-server.http-listen-address=0.0.0.0", "-auth.unsafe-listen-without-authentication"}, true, nil},
		{"bad limit", []string{"-config.check", "-validation.name-validation-scheme=klingon"}, false, []string{"klingon", "legacy"}},
		{"version", []string{"-version"}, true, []string{"version", "revision"}},
		{"help", []string{"-help"}, true, []string{"-config.file", "-target"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := run(ctx, t, path, c.args...)
			if (status == 0) != c.ok {
				t.Errorf("status %d, want success %v", status, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
			if strings.Contains(out, "planted-secret") || strings.Contains(out, "goroutine ") {
				t.Errorf("shows a secret or a stack:\n%s", out)
			}
		})
	}
}

// TestPagesOfOneProcess looks at every page an operator has.
func TestPagesOfOneProcess(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	const secret = "planted-secret"
	n := everything(ctx, t, "-blocks-storage.s3.secret-access-key="+secret, "-blocks-storage.azure.account-key="+secret, "-log.level=debug")
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "good")))
	for _, c := range []struct {
		path, accept string
		want         []string
	}{
		{"/", "", []string{"/config", "/services", "/ingester/ring"}},
		{"/ready", "", []string{"ready"}},
		{"/-/ready", "", []string{"ready"}},
		{"/-/healthy", "", []string{"healthy"}},
		{"/services", "", []string{"ingester", "Running"}},
		{"/services", "application/json", []string{`"name":"ingester"`, `"state":"Running"`}},
		{"/config", "", []string{"multitenancy_enabled: true", "secret_access_key: '********'", "replication_factor"}},
		{"/config?mode=diff", "", []string{"secret_access_key: '********'"}},
		{"/config?mode=defaults", "", []string{"http_listen_port: 8080"}},
		{"/ingester/ring", "", []string{"all", "ACTIVE"}},
		{"/ingester/ring", "application/json", []string{`"ACTIVE"`}},
		{"/distributor/ring", "", []string{"ACTIVE"}},
		{"/ingester/tenants", "", []string{"team-a"}},
		{"/ingester/tsdb/team-a", "application/json", []string{`"series":1`}},
		{"/distributor/all_user_stats", "application/json", []string{"team-a"}},
		{"/metrics", "", []string{"amphora_build_info{", "amphora_ingester_memory_series 1", "go_goroutines"}},
		{"/metrics", "application/openmetrics-text", []string{"# EOF"}},
		{"/debug/pprof/", "", []string{"goroutine"}},
		{"/debug/pprof/goroutine?debug=1", "", []string{"goroutine profile"}},
		{"/debug/pprof/heap", "", nil},
		{"/api/v1/status/buildinfo", "", []string{`"application":"Amphora"`}},
	} {
		r := call(ctx, t, http.MethodGet, n.URL(c.path), nil, "Accept", c.accept)
		if r.status != 200 {
			t.Errorf("%s answered %s", c.path, r)
		}
		for _, want := range c.want {
			if !strings.Contains(r.body, want) {
				t.Errorf("%s (%s) has no %q: %s", c.path, c.accept, want, r)
			}
		}
		if strings.Contains(r.body, secret) {
			t.Errorf("%s shows a secret", c.path)
		}
	}
	for _, path := range []string{"/debug/pprof/cmdline", "/nothing", "/config/../../etc/passwd", "/runtime_config"} {
		if r := call(ctx, t, http.MethodGet, n.URL(path), nil); r.status != 404 || strings.Contains(r.body, secret) {
			t.Errorf("%s answered %s, want 404", path, r)
		}
	}
	must(t, n.Process.Stop())
	if log, err := os.ReadFile(n.LogFile); err != nil || strings.Contains(string(log), secret) || strings.Contains(string(log), "level=error") {
		t.Errorf("the log shows a secret or an error (%v):\n%s", err, log)
	}
}

// TestRuntimeConfigurationIsReadAgain changes limits of a running process.
func TestRuntimeConfigurationIsReadAgain(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	write := func(text string) {
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	write("overrides:\n  team-a: {max_label_names_per_series: 2}\n")
	n := everything(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s")
	push := func(tenant string) reply {
		return pushV1(ctx, t, n.URL(""), tenant, floats(time.Now(), 1, "__name__", "good", "a", "1", "b", "2"))
	}
	reloaded := func() float64 {
		return scrape(ctx, t, n.URL("/metrics"), "amphora_runtime_config_last_reload_successful")
	}
	refused(t, push("team-a"), 400, "max-label-names-per-series")
	stored(t, push("team-b"))
	if v := reloaded(); v != 1 {
		t.Errorf("the metric says %v, want 1", v)
	}

	write("overrides:\n  team-a: {max_label_names_per_series: 3}\n  team-b: {max_label_names_per_series: 2}\n")
	eventually(ctx, t, "the new limits", func() error {
		if r := push("team-a"); r.status != 200 {
			return errors.New(r.String())
		}
		return nil
	})
	refused(t, push("team-b"), 400, "max-label-names-per-series")

	write("overrides:\n  team-a: {max_label_names_per_sries: 1}\n  team-b: {max_label_names_per_series: many}\n")
	eventually(ctx, t, "the mistakes to be seen", func() error {
		if v := reloaded(); v != 0 {
			return fmt.Errorf("the metric says %v", v)
		}
		return nil
	})
	stored(t, push("team-a"))
	refused(t, push("team-b"), 400, "max-label-names-per-series")
	eventually(ctx, t, "the log to tell the mistakes", func() error {
		log, err := os.ReadFile(n.LogFile)
		for _, want := range []string{"overrides.yaml:2", `max_label_names_per_series\`, "overrides.yaml:3", "many"} {
			if err == nil && !strings.Contains(string(log), want) {
				err = fmt.Errorf("%q is not in it:\n%s", want, n.Tail())
			}
		}
		return err
	})
	if page := call(ctx, t, http.MethodGet, n.URL("/runtime_config"), nil); page.status != 200 || !strings.Contains(page.body, "max_label_names_per_series: 3") {
		t.Errorf("/runtime_config answered %s", page)
	}

	write("overrides: {}\n")
	eventually(ctx, t, "the file to be good again", func() error {
		if v := reloaded(); v != 1 {
			return fmt.Errorf("the metric says %v", v)
		}
		return nil
	})
	stored(t, push("team-b"))
}

// eventually polls ok for 45 s, which a machine with much to do may need.
func eventually(ctx context.Context, t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	if err := harness.Poll(ctx, func(context.Context) error { return ok() }); err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}

// slowPush begins a push and ends it when finish is called, which returns the answer.
func slowPush(ctx context.Context, t *testing.T, base, tenant string, s prompb.TimeSeries) (finish func() (reply, error)) {
	t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{s}}).Marshal()
	must(t, err)
	body := snappy.Encode(nil, raw)
	read, write := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/push", read)
	must(t, err)
	req.Header.Set("X-Scope-OrgID", tenant)
	req.Header.Set("Content-Encoding", "snappy")
	type outcome struct {
		reply
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			done <- outcome{err: err}
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		done <- outcome{reply{status: res.StatusCode, header: res.Header, body: string(text)}, err}
	}()
	_, err = write.Write(body[:1])
	must(t, err)
	return func() (reply, error) {
		// The server may have closed the connection; the answer tells.
		_, _ = write.Write(body[1:])
		_ = write.Close()
		o := <-done
		return o.reply, o.err
	}
}

// TestStopLosesNothing stops a process under load and starts it again: what was acknowledged is
// there, and requests under way when it was told to stop are answered.
func TestStopLosesNothing(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-distributor.ingestion-rate-limit=0", "-shutdown-delay=5s")
	j := newJournal("team-a", func() []string { return []string{n.URL("")} })
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 2) })
	defer func() { stop(); wg.Wait() }()
	eventually(ctx, t, "some samples", func() error {
		if acked, _ := j.count(); acked < 2000 {
			return fmt.Errorf("%d samples", acked)
		}
		return nil
	})
	finish := slowPush(ctx, t, n.URL(""), "slow", floats(time.Now(), 1, "__name__", "slow"))
	must(t, n.Signal(syscall.SIGTERM))
	eventually(ctx, t, "the process to say that it stops", func() error {
		if r := call(ctx, t, http.MethodGet, n.URL("/ready"), nil); r.status != http.StatusServiceUnavailable {
			return errors.New(r.String())
		}
		return nil
	})
	stored(t, pushV1(ctx, t, n.URL(""), "late", floats(time.Now(), 1, "__name__", "late"))) // it still serves
	pause(ctx, t, 6*time.Second)                                                            // now it does not
	if r, err := finish(); err != nil || r.status != 200 {
		t.Errorf("a push under way when the process was told to stop: %s, %v", r, err)
	}
	must(t, n.Process.Stop()) // its status is 0
	begin := time.Now()
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	t.Logf("ready again after %s", time.Since(begin).Round(time.Millisecond))
	stop()
	wg.Wait()
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up", acked, given)
	j.verify(ctx, t, n.URL(""))
	has(ctx, t, n.URL(""), "slow", "slow", 1)
	has(ctx, t, n.URL(""), "late", "late", 1)
}

// TestIngesterIsTakenOutOfService uses the calls that operators and their automation make.
func TestIngesterIsTakenOutOfService(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true})
	n := c.Nodes()[0]
	blocks := func(tenant string) int {
		found, err := filepath.Glob(filepath.Join(dir, "blocks", tenant, "*", "meta.json"))
		must(t, err)
		return len(found)
	}
	does := func(method, path string, status int, text string) {
		t.Helper()
		if r := call(ctx, t, method, n.URL(path), nil); r.status != status || strings.TrimSpace(r.body) != text {
			t.Errorf("%s %s answered %s, want %d: %s", method, path, r, status, text)
		}
	}
	good := func(tenant string) prompb.TimeSeries { return floats(time.Now(), 1, "__name__", "good", "t", tenant) }

	stored(t, pushV1(ctx, t, n.URL(""), "one", good("one")))
	stored(t, pushV1(ctx, t, n.URL(""), "two", good("two")))
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true&tenant=one"), nil); r.status != 200 || !strings.Contains(r.body, `"state":"done"`) || !strings.Contains(r.body, `"blocks":1`) {
		t.Errorf("flush answered %s", r)
	}
	if blocks("one") != 1 || blocks("two") != 0 {
		t.Errorf("%d and %d blocks after the flush of the first tenant", blocks("one"), blocks("two"))
	}
	flush := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?tenant=two"), nil) // in the background
	var job struct{ Job string }
	if err := json.Unmarshal([]byte(flush.body), &job); err != nil || flush.status != 202 {
		t.Errorf("flush in the background answered %s (%v)", flush, err)
	}
	eventually(ctx, t, "the second tenant's block", func() error {
		if blocks("two") != 1 {
			return errors.New("none")
		}
		return nil
	})
	eventually(ctx, t, "the result of the flush", func() error {
		if r := call(ctx, t, http.MethodGet, n.URL("/ingester/flush?job="+job.Job), nil); r.status != 200 || !strings.Contains(r.body, `"state":"done"`) {
			return errors.New(r.String())
		}
		return nil
	})
	does(http.MethodGet, "/ingester/flush?job=unknown", 404, `no flush "unknown" is known: the last 100 since the start are`)
	does(http.MethodPost, "/ingester/prepare-partition-downscale", 405, "this ingester owns no partition")

	does(http.MethodGet, "/ingester/prepare-shutdown", 200, "unset")
	does(http.MethodPost, "/ingester/prepare-shutdown", 204, "")
	does(http.MethodGet, "/ingester/prepare-shutdown", 200, "set")
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	does(http.MethodGet, "/ingester/prepare-shutdown", 200, "set") // a crash does not forget it
	does(http.MethodDelete, "/ingester/prepare-shutdown", 204, "")
	does(http.MethodGet, "/ingester/prepare-shutdown", 200, "unset")
	does(http.MethodGet, "/ingester/prepare-instance-ring-downscale", 200, `{"timestamp":0}`)
	does(http.MethodGet, "/ingester/unregister-on-shutdown", 200, `{"unregister":false}`)
	if r := call(ctx, t, http.MethodPut, n.URL("/ingester/unregister-on-shutdown"), []byte(`{"unregister":true}`)); r.status != 200 {
		t.Errorf("PUT of unregister-on-shutdown answered %s", r)
	}
	does(http.MethodGet, "/ingester/unregister-on-shutdown", 200, `{"unregister":true}`)
	does(http.MethodDelete, "/ingester/unregister-on-shutdown", 200, `{"unregister":false}`)

	stored(t, pushV1(ctx, t, n.URL(""), "three", good("three")))
	must(t, n.Restart()) // an ordinary stop keeps the log and makes no block
	must(t, n.WaitReady(ctx))
	if blocks("three") != 0 {
		t.Error("an ordinary stop made a block")
	}
	has(ctx, t, n.URL(""), "three", "good", 1)
	does(http.MethodPost, "/ingester/prepare-shutdown", 204, "")
	must(t, n.Restart()) // a prepared one ships everything
	must(t, n.WaitReady(ctx))
	if blocks("three") != 1 {
		t.Errorf("%d blocks of the third tenant after a prepared stop", blocks("three"))
	}
	has(ctx, t, n.URL(""), "three", "good", 1)

	stored(t, pushV1(ctx, t, n.URL(""), "four", good("four")))
	does(http.MethodPost, "/ingester/shutdown", 204, "")
	if blocks("four") != 1 {
		t.Errorf("%d blocks of the fourth tenant after the shutdown", blocks("four"))
	}
	if r := pushV1(ctx, t, n.URL(""), "four", good("four")); r.status/100 != 5 {
		t.Errorf("a push after the shutdown answered %s", r)
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/ready"), nil); r.status != 503 {
		t.Errorf("/ready after the shutdown answered %s", r)
	}
	if n.PID() == 0 {
		t.Error("the process ended with its ingester")
	}
}
