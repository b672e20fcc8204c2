package head

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// ErrSnapshot says that a snapshot is not whole. The head can be opened without it.
var ErrSnapshot = errors.New("snapshot is damaged")

// Discard removes what a head that is closed, or whose process ended, left in dir beside its blocks
// and its snapshot. The next one does without.
func Discard(dir string) error { return clearCaches(dir) }

// clearCaches removes what an earlier head left in the directory beside blocks. Closed chunks of a head
// whose series are not known mean nothing, or the wrong thing.
func clearCaches(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, openDirs))
	if err != nil {
		return err
	}
	for _, path := range append(left, filepath.Join(dir, chunksDir)) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// place checks the files of a snapshot and moves them where the TSDB looks for them.
func (o *Options) place() error {
	if err := o.Snapshot.check(o.SnapshotDir); err != nil {
		return err
	}
	for _, sub := range []string{chunksDir, openDir} {
		if err := os.Rename(filepath.Join(o.SnapshotDir, sub), filepath.Join(o.Dir, sub)); err != nil {
			return fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	return nil
}

// restore opens a head that begins with a snapshot.
func (h *Head) restore(t *tsdb.Options) (*tsdb.DB, error) {
	if err := h.o.place(); err != nil {
		return nil, err
	}
	t.EnableMemorySnapshotOnShutdown = true // so that one is read
	h.restoring.Store(true)
	defer h.restoring.Store(false)
	db, err := h.openTSDB(t)
	if err != nil {
		return nil, err
	}
	if err := h.restored(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, os.RemoveAll(filepath.Join(h.o.Dir, openDir))
}

// check says whether all files of s are in dir as they were written.
func (s *Snapshot) check(dir string) error {
	for _, f := range s.Files {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%w: file %q is elsewhere", ErrSnapshot, f.Name)
		}
		n, sum, err := sumOf(filepath.Join(dir, f.Name))
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrSnapshot, err)
		case n != f.Bytes || sum != f.Sum:
			return fmt.Errorf("%w: %s does not match its checksum", ErrSnapshot, f.Name)
		}
	}
	return nil
}

// restored finishes the opening of a head from a snapshot, of which the TSDB passes over in silence
// what it cannot read, and tells the hooks of the series that are there.
func (h *Head) restored(db *tsdb.DB) error {
	if db.Head().MinTime() < h.o.Snapshot.MinTime {
		if err := db.Head().Truncate(h.o.Snapshot.MinTime); err != nil {
			return err
		}
	}
	if n := db.Head().NumSeries(); n != h.o.Snapshot.Series {
		return fmt.Errorf("%w: %d of %d series came back", ErrSnapshot, n, h.o.Snapshot.Series)
	}
	// The TSDB shall not try to write a snapshot of its own.
	if opts, ok := part(db.Head(), "opts").Interface().(*tsdb.HeadOptions); ok {
		opts.EnableMemorySnapshotOnShutdown = false
	}
	if h.o.Snapshot.Late {
		h.sawLate.Store(true)
	}
	last, err := readLast(filepath.Join(h.o.SnapshotDir, lastFile), h.o.Snapshot.Series)
	if err != nil {
		return err
	}
	h.db = db
	err = h.ForEachSeries(func(ref Ref, ls labels.Labels) error {
		if uint64(ref) > uint64(len(last)) {
			return fmt.Errorf("%w: it has no series %d", ErrSnapshot, ref)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return h.ForEachSeries(func(ref Ref, ls labels.Labels) error {
		if f := h.o.PostCreate; f != nil {
			f(ls)
		}
		if f := h.o.Restored; f != nil {
			f(ref, ls, last[ref-1])
		}
		return nil
	})
}

// readLast reads the last samples of n series.
func readLast(path string, n uint64) (_ []LastSample, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReader(f)
	var out []LastSample
	for range n {
		t, err := binary.ReadVarint(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrSnapshot, lastFile, err)
		}
		buckets, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrSnapshot, lastFile, err)
		}
		out = append(out, LastSample{t, int(buckets) - 1})
	}
	return out, nil
}
