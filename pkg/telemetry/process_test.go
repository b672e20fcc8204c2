package telemetry

import (
	"bytes"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"go.opentelemetry.io/otel"

	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestTheSmallestLimitOnTheWayToTheRootCounts(t *testing.T) {
	const gib = 1 << 30
	mem := "MemTotal:       16777216 kB\nMemFree: 1 kB\n" // 16 GiB
	for name, c := range map[string]struct {
		files map[string]string
		want  Memory
	}{
		"v2 container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4294967296\n"}, Memory{Available: 4 * gib, From: "cgroup v2"}},
		"v2 nested": {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824"},
			Memory{Available: gib, From: "cgroup v2"}},
		"v2 path of the host": {map[string]string{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "1073741824"}, Memory{Available: gib, From: "cgroup v2"}},
		"v2 without limit":    {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, Memory{Available: 16 * gib, From: "machine"}},
		"v1": {map[string]string{"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648"},
			Memory{Available: 2 * gib, From: "cgroup v1"}},
		"v1 without limit": {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
			Memory{Available: 16 * gib, From: "machine"}},
		"limit above the machine": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999999"}, Memory{Available: 16 * gib, From: "machine"}},
		"nothing known":           {map[string]string{"proc/meminfo": ""}, Memory{}},
	} {
		root := fstest.MapFS{"proc/meminfo": {Data: []byte(mem)}}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := detectMemory(root); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestGOMEMLIMITWinsAndTheFactsAreShown(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "5GiB")
	debug.SetMemoryLimit(5 << 30) // as the runtime does at its start
	m := SetMemoryLimit(0.9)
	if m.GoLimit != 5<<30 || m.GoFrom != "GOMEMLIMIT" || m.Available <= 0 {
		t.Errorf("got %+v", m)
	}
	s := config.NewSet()
	m.Derive(s)
	Memory{GoLimit: math.MaxInt64}.Derive(s)
	var b bytes.Buffer
	if err := s.Print(&b, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`value: "5368709120"`, "the environment variable GOMEMLIMIT", "value: none"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestBuildInfoFallsBackToTheGoTool(t *testing.T) {
	b := Build{Version: "1.2.3"}
	b.fill(&debug.BuildInfo{Main: debug.Module{Version: "v9"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
	}})
	if b != (Build{Version: "1.2.3", Revision: "abc-modified", Date: "2026-01-02T03:04:05Z"}) {
		t.Errorf("got %+v", b)
	}
	if b := BuildInfo(); b.Version == "" || b.Revision == "" || b.Branch == "" || b.Date == "" || b.GoVersion == "" || Version() != b.Version {
		t.Errorf("something is empty in %+v", b)
	}
}

func TestTracesGoOnlyWhereTheEnvironmentSays(t *testing.T) {
	var posts atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/traces" {
			posts.Add(1)
		}
	}))
	defer srv.Close()
	trace := func() {
		t.Helper()
		l, b := logger(t, FormatLogfmt)
		c, err := StartTracing("amphora-test", l)
		if err != nil {
			t.Fatal(err)
		}
		_, span := otel.Tracer("test").Start(t.Context(), "op")
		span.End()
		if err := c.Close(); err != nil {
			t.Errorf("%v: %s", err, b.String())
		}
	}
	trace() // nothing is set
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_SDK_DISABLED", "true")
	trace()
	if posts.Load() != 0 {
		t.Fatalf("%d posts before tracing was asked for", posts.Load())
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	trace()
	if posts.Load() == 0 {
		t.Error("no traces arrived")
	}
}
