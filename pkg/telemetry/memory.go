package telemetry

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

// Memory is what the process may use, and what the Go runtime was told.
type Memory struct {
	Available int64  // bytes; 0 if it could not be found out
	From      string // where Available comes from: "cgroup v2", "cgroup v1", "machine"
	GoLimit   int64  // GOMEMLIMIT in force, bytes; math.MaxInt64 if there is none
	GoFrom    string // who set GoLimit: "GOMEMLIMIT", "cgroup", ""
}

// SetMemoryLimit tells the Go runtime to keep within fraction (0..1) of the memory limit of the
// process's cgroup. It does nothing if GOMEMLIMIT is set or there is no such limit. Call it once,
// before memory is budgeted.
func SetMemoryLimit(fraction float64) Memory {
	m := detectMemory(os.DirFS("/"))
	switch {
	case os.Getenv("GOMEMLIMIT") != "":
		m.GoFrom = "GOMEMLIMIT"
	case strings.HasPrefix(m.From, "cgroup"):
		debug.SetMemoryLimit(int64(float64(m.Available) * fraction))
		m.GoFrom = "cgroup"
	}
	m.GoLimit = debug.SetMemoryLimit(-1) // only asks
	return m
}

// Derive shows m among the derived facts of s.
func (m Memory) Derive(s *config.Set) {
	s.Derive("memory_available_bytes", "the memory limit of the "+orWord(m.From, "process, which could not be found out"),
		func() string { return strconv.FormatInt(m.Available, 10) })
	from := "nothing limits it"
	switch m.GoFrom {
	case "GOMEMLIMIT":
		from = "the environment variable GOMEMLIMIT"
	case "cgroup":
		from = "a part of memory_available_bytes"
	}
	s.Derive("go_memory_limit_bytes", from, func() string {
		if m.GoLimit == math.MaxInt64 {
			return "none"
		}
		return strconv.FormatInt(m.GoLimit, 10)
	})
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// hierarchy is one version of cgroups: where its limits lie, and the controller that names the
// process's path in /proc/self/cgroup.
type hierarchy struct{ from, controller, dir, file string }

// detectMemory returns the smallest memory limit on the way from the process's cgroup to the
// root, else the memory of the machine.
func detectMemory(root fs.FS) Memory {
	machine := machineMemory(root)
	for _, h := range []hierarchy{
		{"cgroup v2", "", "sys/fs/cgroup", "memory.max"},
		{"cgroup v1", "memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		if most := h.limit(root); most > 0 && (machine == 0 || most < machine) {
			return Memory{Available: most, From: h.from}
		}
	}
	if machine > 0 {
		return Memory{Available: machine, From: "machine"}
	}
	return Memory{}
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
		data, err := fs.ReadFile(root, path.Join(p, h.file))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil && n > 0 && (least == 0 || n < least) { // "max" is no number: no limit
			least = n
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
