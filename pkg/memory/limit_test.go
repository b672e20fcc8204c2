package memory

import (
	"bytes"
	"math"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestTheSmallestLimitOnTheWayToTheRootCounts(t *testing.T) {
	const gib = 1 << 30
	mem := "MemTotal:       20971520 kB\nMemFree: 1 kB\n" // 20 GiB
	type files map[string]string
	for name, c := range map[string]struct {
		files files
		bytes int64
		from  string
	}{
		"v2 container": {files{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4294967296\n"}, 4 * gib, "cgroup v2"},
		"v2 nested": {files{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824"},
			gib, "cgroup v2"},
		"v2 throttled": {files{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "4294967296\n", "sys/fs/cgroup/a/memory.high": "3221225472\n"},
			3 * gib, "cgroup v2"},
		"v2 path of the host": {files{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "1073741824"}, gib, "cgroup v2"},
		"v2 without limit":    {files{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 16 * gib, "machine"},
		"v1":                  {files{"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648"}, 2 * gib, "cgroup v1"},
		"v1 without limit":    {files{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 16 * gib, "machine"},
		"above the machine":   {files{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999999"}, 16 * gib, "machine"},
		"nothing known":       {files{"proc/meminfo": ""}, 8 * gib, "assumption"},
	} {
		root := fstest.MapFS{"proc/meminfo": {Data: []byte(mem)}}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if n, from := detect(root); n != c.bytes || from != c.from {
			t.Errorf("%s: %d from %s, want %d from %s", name, n, from, c.bytes, c.from)
		}
	}
}

func TestTheSettingWinsOverTheCgroupAndGOMEMLIMITOverBoth(t *testing.T) {
	root := fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")}, "sys/fs/cgroup/memory.max": {Data: []byte("1000000000\n")}}
	var c Config
	if got, want := c.limits(root, 0), (Limits{1_000_000_000, "cgroup v2", 900_000_000, "memory_limit_bytes"}); got != want {
		t.Errorf("of the cgroup: %+v, want %+v", got, want)
	}
	c.LimitBytes = 200_000_000
	if got, want := c.limits(root, 0), (Limits{200_000_000, "memory.limit", 180_000_000, "memory_limit_bytes"}); got != want {
		t.Errorf("of the setting: %+v, want %+v", got, want)
	}
	if got, want := c.limits(root, 500), (Limits{200_000_000, "memory.limit", 500, "GOMEMLIMIT"}); got != want {
		t.Errorf("of the environment: %+v, want %+v", got, want)
	}
}

func TestTheRuntimeIsToldAndTheFactsAreShown(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "")
	if n := goEnvironment(); n != 0 {
		t.Errorf("an empty environment says %d", n)
	}
	l := (&Config{LimitBytes: 1_000_000_000}).Limits()
	l.Tell()
	if n := debug.SetMemoryLimit(-1); n != 900_000_000 {
		t.Errorf("the runtime was told %d", n)
	}
	s := config.NewSet()
	l.Derive(s)
	t.Setenv("GOMEMLIMIT", "5GiB")
	debug.SetMemoryLimit(5 << 30) // as the runtime does at its start
	(&Config{}).Limits().Derive(s)
	debug.SetMemoryLimit(math.MaxInt64) // GOMEMLIMIT=off
	if n := goEnvironment(); n != 0 {
		t.Errorf("an environment that switches the limit off says %d", n)
	}
	var b bytes.Buffer
	if err := s.Print(&b, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`value: "1000000000"`, `value: "900000000"`, `value: "675000000"`, "new series are refused",
		`value: "5368709120"`, "the environment variable GOMEMLIMIT"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestLimitsInWhichNothingRunsAreRefused(t *testing.T) {
	s := config.NewSet()
	s.Mount("memory", new(Config))
	_, err := config.Load(s, []string{"-memory.limit=200"}, func(string) string { return "" })
	if err == nil || !strings.Contains(err.Error(), "memory.limit") {
		t.Errorf("err = %v", err)
	}
}
