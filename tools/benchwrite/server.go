package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// server is one installation under load.
type server struct {
	name  string
	procs []*harness.Process
	push  string
	query string
	data  string   // everything it keeps on disk
	logs  []string // its write-ahead logs
	stop  func() error

	peak     atomic.Int64 // anonymous memory of all processes together, bytes
	stopPoll context.CancelFunc
	polled   sync.WaitGroup
}

const (
	startWait = time.Minute
	pollEvery = 100 * time.Millisecond
)

// watch keeps the peak of the memory until unwatch.
func (s *server) watch() error {
	var looks []*load.AnonWatch
	for _, p := range s.procs {
		w, err := load.WatchAnon(p.PID())
		if err != nil {
			return err
		}
		looks = append(looks, w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stopPoll = cancel
	s.polled.Go(func() {
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		defer func() {
			for _, w := range looks {
				_ = w.Close() // nothing was written
			}
		}()
		for {
			var sum int64
			for _, w := range looks {
				n, _ := w.Anon() // of a process that ended nothing is left to add
				sum += n
			}
			s.peak.Store(max(sum, s.peak.Load()))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

func (s *server) unwatch() {
	if s.stopPoll != nil {
		s.stopPoll()
		s.polled.Wait()
	}
}

func (s *server) anon() (int64, error) {
	var sum int64
	for _, p := range s.procs {
		n, err := load.AnonOf(p.PID())
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (s *server) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range s.procs {
		d, err := load.CPUOf(p.PID())
		if err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", s.name, err, p.Tail())
		}
		sum += d
	}
	return sum, nil
}

// close stops the server and removes its data.
func (s *server) close() error {
	s.unwatch()
	return errors.Join(s.stop(), os.RemoveAll(s.data))
}

// silent is the log of processes, which have files of their own.
func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// limitsOn are high enough for the load, and checked all the same.
func limitsOn() []string {
	return []string{
		"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000",
		"-ingester.max-global-series-per-user=10000000", "-ingester.max-global-series-per-metric=10000000",
		"-ingester.max-global-exemplars-per-user=100000",
		"-distributor.ha-tracker.enable", "-distributor.ha-tracker.enable-for-all-users",
	}
}

// startOurs starts nodes of ours with blocks in a directory; the first distributor takes the load.
func (b *bench) startOurs(ctx context.Context, name string, nodes []harness.Spec, replicas int) (*server, error) {
	dir := filepath.Join(b.dir, name)
	c, err := harness.NewCluster(ctx, harness.Options{
		Dir: dir, Binary: b.binary, Nodes: nodes, Replicas: replicas, Files: true, Flags: append(limitsOn(), b.flags...),
	})
	s := &server{name: name, data: dir, stop: c.Stop}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, startWait)
		defer cancel()
		err = c.WaitReady(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, n := range c.Nodes() {
		s.procs = append(s.procs, n.Process)
		s.logs = append(s.logs, filepath.Join(n.DataDir, "wal"))
		if s.push == "" && n.Target != "ingester" {
			s.push, s.query = n.URL("/api/v1/push"), n.URL("/prometheus")
		}
	}
	if err := s.watch(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// startOther starts what ours is compared with.
func (b *bench) startOther(ctx context.Context) (*server, error) {
	if b.base == "" {
		return b.startPrometheus(ctx)
	}
	other := *b
	other.binary = b.base
	return other.startOurs(ctx, "baseline", harness.OneProcess(), 1)
}

// startPrometheus starts a Prometheus that receives remote write, with its own defaults but for how many samples a query may read.
func (b *bench) startPrometheus(ctx context.Context) (*server, error) {
	dir := filepath.Join(b.dir, "prometheus")
	p, err := harness.StartPrometheus(ctx, silent(), harness.PrometheusOptions{Dir: dir, Receiver: true})
	if p == nil {
		return nil, err
	}
	url := "http://" + p.Address
	s := &server{name: "prometheus", procs: []*harness.Process{p.Process}, data: dir, logs: []string{filepath.Join(dir, "data", "wal")},
		push: url + "/api/v1/write", query: url, stop: p.Stop}
	if err == nil {
		err = s.watch()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// diskBytes is what dirs take on disk.
func diskBytes(dirs ...string) int64 {
	var sum int64
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil // files come and go while the server runs
			}
			if info, err := e.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					sum += min(info.Size(), st.Blocks*512) // neither holes nor room set aside
				}
			}
			return nil
		})
	}
	return sum
}

func memoryAvailable() int64 {
	text, _ := os.ReadFile("/proc/meminfo") // without it the answer is 0: unknown is little
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // only printed
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg") // only printed
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
