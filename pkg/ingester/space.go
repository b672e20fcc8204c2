package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
)

// mostLowBytes bounds what a part of a disk means: of a large one a small part is room for days.
const mostLowBytes = 2 << 30

// DiskConfig says how much of the disk stays free.
type DiskConfig struct {
	MinFreeRatio float64 // 0..1
	MinFreeBytes int
}

// Declare names each setting once.
func (c *DiskConfig) Declare(s *config.Set) {
	s.Float(&c.MinFreeRatio, "min-free-disk-space-ratio", 0.05,
		"Free part of the disk of data_dir, at most 2 GiB, below which no new series are accepted, so that the space lasts longer for known ones. 0: off.").Expert()
	s.Int(&c.MinFreeBytes, "min-free-disk-space-bytes", 100<<20,
		"Free bytes on the disk of data_dir below which no samples are accepted until there is room again; queries are answered. 0: off.").Expert()
}

// Validate refuses what makes no sense.
func (c *DiskConfig) Validate() error {
	switch {
	case c.MinFreeRatio < 0 || c.MinFreeRatio >= 1:
		return config.Wrong("min-free-disk-space-ratio", "is %g; it must be at least 0 and below 1", c.MinFreeRatio)
	case c.MinFreeBytes < 0:
		return config.Wrong("min-free-disk-space-bytes", "is %d; it must not be negative", c.MinFreeBytes)
	}
	return nil
}

// DiskSpace is what a file system has, in bytes, for a process like this.
type DiskSpace struct{ Free, Total uint64 }

// diskSpace asks the file system of dir.
func diskSpace(dir string) (DiskSpace, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return DiskSpace{}, fmt.Errorf("find the free space of %s: %w", dir, err)
	}
	return DiskSpace{Free: s.Bavail * uint64(s.Bsize), Total: s.Blocks * uint64(s.Bsize)}, nil
}

// noSpace says whether err is that of a disk without room.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// spaceState is what the free space allows.
type spaceState int32

const (
	spaceEnough spaceState = iota
	spaceLow               // no new series
	spaceFull              // no samples
)

// resumeAt is how far above a threshold the free space must be to count as above it again, so that
// the state does not flap.
const resumeAt = 1.1

// space watches the disk. A write that finds no room fails by itself; the point is to stop before
// the room is gone that cuts and checkpoints need to make some.
type space struct {
	cfg   DiskConfig
	dir   string
	log   *slog.Logger
	free  func(dir string) (DiskSpace, error)
	asked chan struct{} // somebody saw a write fail

	state         atomic.Int32
	refusal       atomic.Pointer[error] // of the state
	unknown       bool                  // the last look failed; of the one goroutine that looks
	bytes, total  prometheus.Gauge
	restrictions  prometheus.Gauge
	failedLookups prometheus.Counter
}

func (s *space) init(c Config, log *slog.Logger, free func(string) (DiskSpace, error), reg prometheus.Registerer) {
	s.cfg, s.dir, s.log, s.free = c.Disk, c.DataDir, log, free
	if s.free == nil {
		s.free = diskSpace
	}
	s.asked = make(chan struct{}, 1)
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_disk_" + name, Help: help})
	}
	s.bytes = gauge("free_bytes", "Free space on the disk of the data directory.")
	s.total = gauge("size_bytes", "Size of the disk of the data directory.")
	s.restrictions = gauge("restriction", "What the free space forbids: 0 nothing, 1 new series, 2 samples. Above 0 somebody must make room.")
	s.failedLookups = f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_disk_lookups_failed_total",
		Help: "Times the free space could not be found out; then a full disk is only noticed by failing writes."})
}

// ask has the disk looked at now rather than in time.
func (s *space) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// low returns the refusal of new series, nil if they may be created.
func (s *space) low() error { return s.refusalFrom(spaceLow) }

// full returns the refusal of all samples, nil if they may be stored.
func (s *space) full() error { return s.refusalFrom(spaceFull) }

func (s *space) refusalFrom(least spaceState) error {
	if s.state.Load() < int32(least) {
		return nil
	}
	if err := s.refusal.Load(); err != nil {
		return *err
	}
	return nil
}

// look asks the disk and draws the consequences. One goroutine calls it at a time.
func (s *space) look() {
	d, err := s.free(s.dir)
	if err != nil {
		s.failedLookups.Inc()
		if !s.unknown {
			s.log.Warn("free disk space not known, a full disk is only noticed by failing writes", "err", err)
		}
		s.unknown = true
		return
	}
	s.unknown = false
	s.bytes.Set(float64(d.Free))
	s.total.Set(float64(d.Total))
	was := spaceState(s.state.Load())
	now := s.cfg.judge(d, was)
	if now != was {
		s.enter(now, d)
	}
	s.restrictions.Set(float64(now)) // what is told is in force
}

// judge returns the state that d means for one that was in state was.
func (c *DiskConfig) judge(d DiskSpace, was spaceState) spaceState {
	fullBelow := float64(c.MinFreeBytes)
	lowBelow := max(min(c.MinFreeRatio*float64(d.Total), mostLowBytes), fullBelow)
	if was == spaceFull {
		fullBelow *= resumeAt
	}
	if was >= spaceLow {
		lowBelow *= resumeAt
	}
	switch free := float64(d.Free); {
	case free < fullBelow:
		return spaceFull
	case free < lowBelow:
		return spaceLow
	}
	return spaceEnough
}

// startBytes is what a start needs on disk. Late samples that are read back fill chunks there, and
// the process ends when it cannot write them: better to wait than to start again and again.
const startBytes = 16 << 20

// awaitSpace returns when the disk has enough room for a start. Closed chunks of the last process
// are of no use any more, and go first.
func (i *Ingester) awaitSpace(ctx context.Context) error {
	least := uint64(min(i.cfg.Disk.MinFreeBytes, startBytes))
	enough := func() bool {
		d, err := i.space.free(i.cfg.DataDir)
		return err != nil || d.Free >= least // what is not known will be seen
	}
	if enough() {
		return nil
	}
	i.discardChunks()
	tick := time.NewTicker(guardTick)
	defer tick.Stop()
	var told occasional
	for !enough() {
		if told.due(time.Now(), time.Minute) {
			i.log.Error("disk is full, the start waits until there is room", "dir", i.cfg.DataDir, "needed_bytes", least)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (i *Ingester) discardChunks() {
	entries, err := os.ReadDir(i.tenantsDir())
	if err != nil {
		return // there are no tenants yet, or the start will say what is wrong
	}
	for _, e := range entries {
		if err := head.Discard(filepath.Join(i.tenantsDir(), e.Name())); err != nil {
			i.log.Warn("closed chunks of the last process not removed", "tenant", e.Name(), "err", err)
		}
	}
}

func (s *space) enter(now spaceState, d DiskSpace) {
	var refusal error
	switch now {
	case spaceEnough:
		s.log.Info("disk has room again, everything is taken", "dir", s.dir, "free_bytes", d.Free)
	case spaceLow:
		refusal = errs.WithID(errs.Unavailable, "ingester-disk-low", "Make room on it, or set -ingester.min-free-disk-space-ratio.",
			"the disk of the ingester has only %d bytes left and the ingester takes no new series", d.Free)
		s.log.Error("disk is nearly full, no new series are taken until there is room", "dir", s.dir, "free_bytes", d.Free, "size_bytes", d.Total)
	case spaceFull:
		refusal = errs.WithID(errs.Unavailable, "ingester-disk-full", "Make room on it, or set -ingester.min-free-disk-space-bytes.",
			"the disk of the ingester has only %d bytes left and the ingester takes no samples", d.Free)
		s.log.Error("disk is full, no samples are taken until there is room; queries are answered", "dir", s.dir, "free_bytes", d.Free, "size_bytes", d.Total)
	}
	if refusal != nil {
		s.refusal.Store(&refusal)
	}
	s.state.Store(int32(now))
}
