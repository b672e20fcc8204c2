package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// continuously starts a process with the target continuous-test against n.
func continuously(ctx context.Context, t *testing.T, n *harness.Node, name string) *tester {
	t.Helper()
	var free harness.Ports
	ports, err := free.Free(2)
	must(t, err)
	x := &tester{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	x.Process = harness.NewProcess(harness.TestLog(t), harness.Command{
		Name: name, Path: binary(ctx, t), LogFile: filepath.Join(t.TempDir(), "log"),
		Args: append(testFlags(n), fmt.Sprintf("-server.http-listen-port=%d", ports[0]), fmt.Sprintf("-server.grpc-listen-port=%d", ports[1])),
	})
	must(t, x.Start())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s ends:\n%s", name, x.Tail())
		}
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func testFlags(n *harness.Node) []string {
	return []string{
		"-target=continuous-test", "-server.http-listen-address=127.0.0.1", "-server.grpc-listen-address=127.0.0.1",
		"-tests.write-endpoint=" + n.URL(""), "-tests.read-endpoint=" + n.URL("/prometheus"), "-tests.tenant-id=probe",
		"-tests.run-interval=1s", "-tests.write-interval=1s", "-tests.write-timeout=30s",
		"-tests.write-read-series-test.num-series=30", "-tests.write-batch-size=20",
	}
}

type tester struct {
	*harness.Process
	url string
}

// counts waits until the counter called name adds up to ok.
func (x *tester) counts(ctx context.Context, t *testing.T, name string, ok func(float64) bool, want ...string) {
	t.Helper()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		if _, err := harness.Get(ctx, x.url+"/metrics"); err != nil {
			return err
		}
		if v := scrape(ctx, t, x.url+"/metrics", "amphora_continuous_test_"+name, want...); !ok(v) {
			return fmt.Errorf("%s is %g", name, v)
		}
		return nil
	}))
}

func TestTheContinuousTestFindsAWrongSample(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t)
	x := continuously(ctx, t, n, "tester")
	for _, protocol := range []string{"prometheus", "prometheus2", "otlp-http"} {
		for _, kind := range []string{"float", "histogram"} {
			x.counts(ctx, t, "query_result_checks_total", func(v float64) bool { return v >= 12 }, "protocol", protocol, "type", kind)
		}
	}
	x.counts(ctx, t, "query_result_checks_failed_total", func(v float64) bool { return v == 0 })
	x.counts(ctx, t, "queries_failed_total", func(v float64) bool { return v == 0 })

	// Another process goes on with the same samples.
	must(t, x.Stop())
	again := continuously(ctx, t, n, "tester-again")
	again.counts(ctx, t, "query_result_checks_total", func(v float64) bool { return v >= 40 })
	again.counts(ctx, t, "query_result_checks_failed_total", func(v float64) bool { return v == 0 })
	log, err := os.ReadFile(again.LogFile)
	must(t, err)
	if strings.Count(string(log), "the continuous test goes on") != 6 {
		t.Errorf("it does not go on:\n%s", log)
	}

	// One sample more makes a sum wrong. It is planted a little ahead, so that it is read whenever that is.
	at := time.Now().Truncate(time.Second).Add(2 * time.Second)
	stored(t, pushV1(ctx, t, n.URL(""), "probe", floats(at, 1, "__name__", "amphora_continuous_test_sine_wave_v1", "protocol", "prometheus2", "series_id", "stranger")))
	again.counts(ctx, t, "query_result_checks_failed_total", func(v float64) bool { return v > 0 }, "protocol", "prometheus2", "type", "float")
	again.counts(ctx, t, "query_result_checks_failed_total", func(v float64) bool { return v == 0 }, "protocol", "prometheus")
	eventually(ctx, t, "the log to say what is wrong", func() error {
		log, err := os.ReadFile(again.LogFile)
		if err == nil && !strings.Contains(string(log), "an answer is not what was written") {
			err = fmt.Errorf("it does not:\n%s", again.Tail())
		}
		return err
	})
}

func TestASmokeTestTellsByItsStatus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t)
	var free harness.Ports
	ports, err := free.Free(2)
	must(t, err)
	flags := append(testFlags(n), "-tests.smoke-test", fmt.Sprintf("-server.http-listen-port=%d", ports[0]), fmt.Sprintf("-server.grpc-listen-port=%d", ports[1]))
	if out, err := exec.CommandContext(ctx, binary(ctx, t), flags...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	flags = append(flags, "-tests.read-endpoint="+n.URL("/nowhere"))
	if out, err := exec.CommandContext(ctx, binary(ctx, t), flags...).CombinedOutput(); err == nil {
		t.Errorf("it goes well without answers:\n%s", out)
	}
}
