package ingester

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wal"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// snapshotFile in the data directory says that the heads are in snapshots, and up to where of the
	// log. It is written last, and removed before a snapshot is used.
	snapshotFile = "snapshot.json"
	// snapshotDir in a tenant's directory holds the snapshot of its head.
	snapshotDir = "snapshot"
	// snapshotVersion changes with the format. A snapshot of another version is not used.
	snapshotVersion = 1
)

// snapshot is what a planned stop leaves behind beside the log, so that the next start need not
// read that.
type snapshot struct {
	Version int
	Log     wal.Position // everything before is in the snapshot, and nothing else
	Tenants map[tenant.ID]tenantSnapshot
}

// tenantSnapshot is one tenant's part.
type tenantSnapshot struct {
	Failed   bool `json:",omitempty"` // it is in the log only
	Head     head.Snapshot
	Segments segmentsSnapshot
}

// segmentsSnapshot is what segmentTimes know.
type segmentsSnapshot struct {
	Newest  [][2]int64 // segment and newest sample, ascending
	Last    int
	NoLate  int
	InBlock int64
}

func (s *segmentTimes) snapshot() segmentsSnapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := segmentsSnapshot{Last: s.last, NoLate: s.noLate, InBlock: s.inBlock}
	for _, e := range s.newest {
		out.Newest = append(out.Newest, [2]int64{int64(e.segment), e.maxt})
	}
	return out
}

func (s *segmentTimes) restore(from segmentsSnapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.noLate, s.inBlock, s.newest = from.Last, from.NoLate, from.InBlock, nil
	for _, e := range from.Newest {
		s.newest = append(s.newest, segmentTime{int(e[0]), e[1]})
	}
}

// takeSnapshot writes the heads of all tenants to disk. Nothing may be pushed any more.
func (i *Ingester) takeSnapshot(ctx context.Context) error {
	begun := time.Now()
	if err := i.space.full(); err != nil {
		return err
	}
	end, err := i.wal.End()
	if err != nil {
		return err
	}
	s := snapshot{Version: snapshotVersion, Log: end, Tenants: map[tenant.ID]tenantSnapshot{}}
	var mu sync.Mutex // guards s.Tenants and the counts
	series, size, failed := uint64(0), int64(0), 0
	each(i.all(), max(1, runtime.GOMAXPROCS(0)), func(t *tenantHead) {
		part, err := t.takeSnapshot(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			i.log.Warn("no snapshot of a tenant, its samples will be read back from the log", "tenant", t.id, "err", err)
			part = tenantSnapshot{Failed: true}
			failed++
		}
		s.Tenants[t.id] = part
		series += part.Head.Series
		for _, f := range part.Head.Files {
			size += f.Bytes
		}
	})
	if err := s.write(i.cfg.DataDir); err != nil {
		return err
	}
	i.log.Info("snapshot written", "tenants", len(s.Tenants), "failed", failed, "series", series, "bytes", size, "took", time.Since(begun))
	return nil
}

func (t *tenantHead) takeSnapshot(ctx context.Context) (tenantSnapshot, error) {
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if !t.enter() {
		return tenantSnapshot{}, errs.New(errs.Unavailable, "the head is closed")
	}
	defer t.leave()
	s, err := t.head.Snapshot(ctx, filepath.Join(t.dir, snapshotDir))
	return tenantSnapshot{Head: s, Segments: t.segments.snapshot()}, err
}

// write makes s durable in dir, all of it or nothing: a line with the checksum, and JSON.
func (s *snapshot) write(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replaceFile(dir, snapshotFile, append(fmt.Appendf(nil, "%08x\n", snapshotSum(b)), b...))
}

func snapshotSum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// readSnapshot returns the snapshot in dir, nil if there is none.
func readSnapshot(dir string) (*snapshot, error) {
	b, err := os.ReadFile(filepath.Join(dir, snapshotFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSnapshot(b)
}

// errSnapshotFile says that snapshotFile is not as it was written.
var errSnapshotFile = errors.New(snapshotFile + " is damaged")

func parseSnapshot(b []byte) (*snapshot, error) {
	sum, body, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x", snapshotSum(body)) {
		return nil, errSnapshotFile
	}
	var s snapshot
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", errSnapshotFile, err)
	}
	if s.Version != snapshotVersion {
		return nil, fmt.Errorf("%s has version %d, this program reads %d", snapshotFile, s.Version, snapshotVersion)
	}
	return &s, nil
}

// claimSnapshot returns the snapshot to start from, nil if there is none that fits the log. It is
// gone from the disk afterwards: heads change the files they begin with, so that a crash from here
// on must find the log alone.
func (i *Ingester) claimSnapshot() (*snapshot, error) {
	s, err := readSnapshot(i.cfg.DataDir)
	if err != nil {
		i.log.Warn("snapshot of the last stop not used, the write-ahead log is read back", "err", err)
	}
	path := filepath.Join(i.cfg.DataDir, snapshotFile)
	if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return nil, errs.New(errs.Unavailable, "remove %s: %w", path, rerr)
	}
	if serr := syncDir(i.cfg.DataDir); serr != nil {
		return nil, errs.New(errs.Unavailable, "remove %s: %w", path, serr)
	}
	if s != nil && !i.wal.EndsAt(s.Log) {
		i.log.Warn("snapshot of the last stop not used, the write-ahead log went on without it and is read back")
		return nil, nil
	}
	return s, nil
}

// restore opens the heads that are in s, and returns the tenants whose samples are all there.
func (i *Ingester) restore(ctx context.Context, s *snapshot) (map[tenant.ID]bool, error) {
	var (
		mu   sync.Mutex // guards the fields below
		done = map[tenant.ID]bool{}
		out  []error
		ids  []tenant.ID
	)
	for id := range s.Tenants {
		ids = append(ids, id)
	}
	each(ids, max(1, runtime.GOMAXPROCS(0)), func(id tenant.ID) {
		part := s.Tenants[id]
		if part.Failed || ctx.Err() != nil {
			return
		}
		t, err := i.openHead(id, opening{replaying: true, from: &part.Head})
		if err == nil {
			t.segments.restore(part.Segments)
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, head.ErrSnapshot):
			i.log.Warn("snapshot of a tenant not used, its samples are read back from the log", "tenant", id, "err", err)
		case err != nil:
			out = append(out, err)
		default:
			done[id] = true
		}
	})
	if ctx.Err() != nil {
		out = append(out, context.Cause(ctx))
	}
	return done, errors.Join(out...)
}

// restored is told of a series that came back from a snapshot.
func (t *tenantHead) restored(ref head.Ref, ls labels.Labels, last head.LastSample) {
	v := t.activity.visit(0)
	v.adopt(ref, frame.ShardToken(t.id, ls), ls)
	i := t.ing
	v.replayed(ref, i.clock.tick(min(last.Time, i.now().UnixMilli())), uint32(last.Buckets+1))
}
