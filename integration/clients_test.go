package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// everything starts the whole product in one process, with its blocks in files.
func everything(ctx context.Context, t *testing.T, flags ...string) *harness.Node {
	t.Helper()
	c := oneProcess(ctx, t, harness.Options{Files: true, Flags: flags})
	return c.Nodes()[0]
}

// oneProcess starts a cluster of one process.
func oneProcess(ctx context.Context, t *testing.T, o harness.Options) *harness.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	o.Binary, o.Nodes, o.Replicas = binary(ctx, t), harness.OneProcess(), 1
	return harness.Start(ctx, t, o)
}

// bounded is a context for one test. Its time begins when the product is built: the test that happens to be
// the first has as much as the others.
func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	if !testing.Short() {
		binary(t.Context(), t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// reply is what a server answered.
type reply struct {
	status int
	header http.Header
	body   string
	again  func() reply // of a push: sends it once more
}

func (r reply) String() string { return fmt.Sprintf("%d: %.500s", r.status, r.body) }

// call sends one request; header is a list of name, value, name, value. A request that is not
// answered ends the test.
func call(ctx context.Context, t *testing.T, method, url string, body []byte, header ...string) reply {
	t.Helper()
	r, err := try(ctx, method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try is call that returns why there was no answer.
func try(ctx context.Context, method, url string, body []byte, header ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return reply{status: res.StatusCode, header: res.Header, body: string(text)}, err
}

// The content types of remote write.
const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// pushV1 sends series by remote write 1.0.
func pushV1(ctx context.Context, t *testing.T, base, tenant string, series ...prompb.TimeSeries) reply {
	t.Helper()
	return pushRequest(ctx, t, base, tenant, &prompb.WriteRequest{Timeseries: series})
}

func pushRequest(ctx context.Context, t *testing.T, base, tenant string, req *prompb.WriteRequest) reply {
	t.Helper()
	raw, err := req.Marshal()
	must(t, err)
	return pushBytes(ctx, t, base, tenant, typeV1, raw)
}

// pushV2 sends a remote write 2.0 request.
func pushV2(ctx context.Context, t *testing.T, base, tenant string, req *writev2.Request) reply {
	t.Helper()
	raw, err := req.Marshal()
	must(t, err)
	return pushBytes(ctx, t, base, tenant, typeV2, raw)
}

// pushBytes compresses plain and pushes it.
func pushBytes(ctx context.Context, t *testing.T, base, tenant, contentType string, plain []byte) reply {
	t.Helper()
	send := func() reply {
		return call(ctx, t, http.MethodPost, base+"/api/v1/push", snappy.Encode(nil, plain),
			"X-Scope-OrgID", tenant, "Content-Type", contentType, "Content-Encoding", "snappy")
	}
	r := send()
	r.again = send
	return r
}

// stored asserts a push that was taken whole. One that ingesters were too slow for, as they may be on a machine with much to
// do, is sent again, as clients do that are told so.
func stored(t *testing.T, r reply) {
	t.Helper()
	for tries := 0; tries < 10 && r.again != nil && r.status == http.StatusServiceUnavailable && strings.Contains(r.body, "no answer within"); tries++ {
		again := r.again
		r = again()
		r.again = again
	}
	if r.status/100 != 2 {
		t.Fatalf("push answered %s", r)
	}
}

// keep pushes raw until it is taken, as clients do that are told to come again.
func keep(ctx context.Context, t *testing.T, base, tenant string, raw []byte) {
	t.Helper()
	eventually(ctx, t, "a push that is taken", func() error {
		r := pushBytes(ctx, t, base, tenant, typeV1, raw)
		if r.status == http.StatusServiceUnavailable {
			return fmt.Errorf("answered %s", r)
		}
		stored(t, r)
		return nil
	})
}

// pairs makes labels of name, value, name, value, in that order.
func pairs(kv ...string) []prompb.Label {
	var out []prompb.Label
	for i := 0; i+1 < len(kv); i += 2 {
		out = append(out, prompb.Label{Name: kv[i], Value: kv[i+1]})
	}
	return out
}

// floats makes a series of one sample.
func floats(at time.Time, v float64, kv ...string) prompb.TimeSeries {
	return prompb.TimeSeries{Labels: pairs(kv...), Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: v}}}
}

// scrape reads the page of metrics at url and adds up the counters and gauges called name whose
// labels include want (name, value, name, value).
func scrape(ctx context.Context, t *testing.T, url, name string, want ...string) float64 {
	t.Helper()
	body, err := harness.Get(ctx, url)
	must(t, err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	must(t, err)
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		fits := true
		for i := 0; i+1 < len(want); i += 2 {
			fits = fits && has[want[i]] == want[i+1]
		}
		if fits {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return sum
}

// peakMemory is the most resident memory, in bytes, that the process of n ever had.
func peakMemory(t *testing.T, n *harness.Node) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), "status"))
	if err != nil {
		t.Skipf("this system does not tell the memory of a process: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			must(t, err)
			return kb << 10
		}
	}
	t.Fatal("no VmHWM in the status of the process")
	return 0
}

// run runs a program to its end and returns what it printed and its exit status.
func run(ctx context.Context, t *testing.T, path string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(path), args, err, text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// promtool runs promtool and expects it to succeed.
func promtool(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	path, err := harness.Tool("promtool")
	harness.Need(t, err)
	path, err = filepath.Abs(path)
	must(t, err)
	out, status := run(ctx, t, path, args...)
	if status != 0 {
		t.Errorf("promtool %s ended with %d:\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// answer is what the query API answers.
type answer struct {
	Status, ErrorType, Error string
	Warnings, Infos          []string
	Data                     struct {
		ResultType string
		Result     []oneSeries
	}
}

// oneSeries is a series of an answer. A sample is a time in seconds and a value as text; a
// histogram is a time and an object.
type oneSeries struct {
	Metric           map[string]string
	Value, Histogram []any
	Values           [][2]any
	Histograms       [][2]any
}

// ask sends a request to the query API at base and decodes a successful answer with series.
func ask(ctx context.Context, base, tenant, path string, params url.Values) (answer, error) {
	body, err := harness.Get(ctx, base+"/api/v1/"+path+"?"+params.Encode(), "X-Scope-OrgID", tenant)
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("decode %.300s: %w", body, err)
	}
	return a, nil
}

// matrix evaluates expr of a tenant at a time in milliseconds.
func matrix(ctx context.Context, base, tenant, expr string, at int64) ([]oneSeries, error) {
	a, err := ask(ctx, base+"/prometheus", tenant, "query", url.Values{"query": {expr}, "time": {seconds(at)}})
	return a.Data.Result, err
}

// seconds is how the API takes a time in milliseconds.
func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }
