package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// usage is what a process uses.
type usage struct {
	found      int64 // bytes of anonymous memory in RAM, garbage included
	anon       int64 // the same after a collection and some rest
	heap       int64 // bytes of live objects
	goroutines int
	files      int // open
	mappings   int
	idleCPU    float64 // seconds of processor time per second of doing nothing
	page       int     // bytes of the metrics page
	pageTook   time.Duration
}

// usageOf looks at n after a garbage collection, and watches it for as long as idle.
func usageOf(ctx context.Context, n *harness.Node, idle time.Duration) (usage, error) {
	var u usage
	var err error
	if u.found, err = load.AnonOf(n.PID()); err != nil {
		return u, err
	}
	for range 2 { // what the first one finds in pools is garbage for the second
		if _, err := harness.Get(ctx, n.URL("/debug/pprof/heap?gc=1")); err != nil {
			return u, err
		}
	}
	if u.idleCPU, err = idleCPU(ctx, n.PID(), idle); err != nil {
		return u, err
	}
	if u.anon, err = load.AnonOf(n.PID()); err != nil {
		return u, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	if err != nil {
		return u, fmt.Errorf("count open files: %w", err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", n.PID()))
	if err != nil {
		return u, fmt.Errorf("count mappings: %w", err)
	}
	u.files, u.mappings = len(files), bytes.Count(maps, []byte("\n"))
	began := time.Now()
	page, err := harness.Get(ctx, n.URL("/metrics"))
	if err != nil {
		return u, err
	}
	u.page, u.pageTook = len(page), time.Since(began)
	u.heap = int64(value(page, "go_memstats_heap_alloc_bytes"))
	u.goroutines = int(value(page, "go_goroutines"))
	return u, nil
}

func idleCPU(ctx context.Context, pid int, idle time.Duration) (float64, error) {
	before, err := load.CPUOf(pid)
	if err != nil || idle <= 0 {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := load.CPUOf(pid)
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// value returns the value of a metric without labels, 0 if the page does not have it.
func value(page []byte, name string) float64 {
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v
		}
	}
	return 0
}
