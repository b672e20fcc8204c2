package memory

import (
	"bufio"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// machinePart of the machine's memory is for a process that nothing limits: the rest belongs to
	// the page cache, which holds mapped blocks, and to whatever else runs there.
	machinePart = 0.8
	// goPart of the limit is what the Go runtime is told to stay within. The rest is for what it does
	// not count: the program's own pages, mapped files and what the kernel keeps for the process.
	goPart = 0.9
	// assumedBytes stands for the memory of a machine that does not say how much it has.
	assumedBytes = 8 << 30
	// leastBytes is the smallest limit that is accepted: an empty process needs half of it.
	leastBytes = 64 << 20
)

// Config is the settings of memory.
type Config struct {
	LimitBytes int // 0: found out
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Int(&c.LimitBytes, "limit", 0,
		"Bytes of memory this process may use. Near it, new series are refused first, then reads, then writes. 0: the limit of the cgroup, else 80 % of the machine's memory.")
}

// Validate refuses limits in which no process can run.
func (c *Config) Validate() error {
	if c.LimitBytes != 0 && c.LimitBytes < leastBytes {
		return config.Wrong("limit", "is %d, a process needs at least %d", c.LimitBytes, leastBytes)
	}
	return nil
}

// Limits are what the process may use, and what the Go runtime is to stay within.
type Limits struct {
	Process int64  // bytes
	From    string // who says so: "memory.limit", "cgroup v2", "cgroup v1", "machine", "assumption"
	Go      int64  // bytes
	GoFrom  string // who says so: "GOMEMLIMIT", "memory_limit_bytes"
}

// Limits finds out what holds for this process.
func (c *Config) Limits() Limits { return c.limits(os.DirFS("/"), goEnvironment()) }

// goEnvironment returns the limit that the environment gave the Go runtime; 0 if it gave none.
func goEnvironment() int64 {
	if os.Getenv("GOMEMLIMIT") == "" {
		return 0
	}
	if most := debug.SetMemoryLimit(-1); most < math.MaxInt64 { // only asks
		return most
	}
	return 0
}

func (c *Config) limits(root fs.FS, environment int64) Limits {
	l := Limits{Process: int64(c.LimitBytes), From: "memory.limit"}
	if l.Process == 0 {
		l.Process, l.From = detect(root)
	}
	l.Go, l.GoFrom = int64(float64(l.Process)*goPart), "memory_limit_bytes"
	if environment > 0 {
		l.Go, l.GoFrom = environment, "GOMEMLIMIT"
	}
	return l
}

// Tell gives the Go runtime its limit. Call it once, before memory is budgeted.
func (l Limits) Tell() { debug.SetMemoryLimit(l.Go) }

// Derive shows l among the derived facts of s.
func (l Limits) Derive(s *config.Set) {
	how := map[string]string{
		"memory.limit": "memory.limit", "machine": "80 % of the machine's memory, as no cgroup limits it",
		"assumption": "an assumption: neither a cgroup nor the machine says",
	}[l.From]
	if how == "" {
		how = "the memory limit of the " + l.From
	}
	s.Derive("memory_limit_bytes", how, func() string { return strconv.FormatInt(l.Process, 10) })
	how = "nine tenths of memory_limit_bytes"
	if l.GoFrom == "GOMEMLIMIT" {
		how = "the environment variable GOMEMLIMIT"
	}
	s.Derive("go_memory_limit_bytes", how, func() string { return strconv.FormatInt(l.Go, 10) })
	for c := caches; c < owed; c++ {
		s.Derive("memory_line_"+c.row().name+"_bytes", "go_memory_limit_bytes; when more is in use, "+c.row().then,
			func() string { return strconv.FormatInt(l.line(c), 10) })
	}
}

// line is how many bytes may be in use before c is refused more.
func (l Limits) line(c class) int64 { return int64(float64(l.Go) * c.row().line) }

// hierarchy is one version of cgroups: where its limits lie, and the controller that names the
// process's path in /proc/self/cgroup.
type hierarchy struct {
	from, controller, dir string
	files                 []string
}

// detect returns the smallest memory limit on the way from the process's cgroup to the root, else
// a part of the memory of the machine.
func detect(root fs.FS) (bytes int64, from string) {
	machine := machineMemory(root)
	for _, h := range []hierarchy{
		{"cgroup v2", "", "sys/fs/cgroup", []string{"memory.max", "memory.high"}},
		{"cgroup v1", "memory", "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}},
	} {
		if most := h.limit(root); most > 0 && (machine == 0 || most < machine) {
			return most, h.from
		}
	}
	if machine > 0 {
		return int64(float64(machine) * machinePart), "machine"
	}
	return assumedBytes, "assumption"
}

// limit walks from the process's cgroup below h.dir up to h.dir itself; 0 is no limit. In a
// container the path may not exist below h.dir; then only h.dir is looked at.
func (h hierarchy) limit(root fs.FS) int64 {
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	own := ""
	for line := range strings.Lines(string(data)) { // id:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), h.controller) {
			own = parts[2]
		}
	}
	least := int64(0)
	for p := path.Join(h.dir, path.Clean("/"+own)); strings.HasPrefix(p, h.dir); p = path.Dir(p) {
		for _, file := range h.files {
			data, err := fs.ReadFile(root, path.Join(p, file))
			if err != nil {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
			if err == nil && n > 0 && (least == 0 || n < least) { // "max" is no number: no limit
				least = n
			}
		}
	}
	return least
}

func machineMemory(root fs.FS) int64 {
	f, err := root.Open("proc/meminfo")
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // nothing was written
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
