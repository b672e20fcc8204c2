package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// disk is what the log asks of a file system. Tests put faults and power cuts behind it.
type disk interface {
	// Open opens path with the flags of os.OpenFile.
	Open(path string, flag int) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	// List returns the regular files of dir.
	List(dir string) ([]entry, error)
	// SyncDir makes created, renamed and removed names of dir durable.
	SyncDir(dir string) error
}

// file is an open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// entry is one file of a directory.
type entry struct {
	name  string
	bytes int64
}

// osDisk is the file system of the machine.
type osDisk struct{}

func (osDisk) Open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) List(dir string) ([]entry, error) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]entry, 0, len(found))
	for _, e := range found {
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, entry{e.Name(), info.Size()})
	}
	return out, nil
}

func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir creates dir and what is missing above it, and makes the names durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(dir)
	if err := makeDir(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return osDisk{}.SyncDir(above)
}

const lockName = "lock"

// lockDir takes the lock of dir for this process. The kernel drops it when the process ends in
// whatever way.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock write-ahead log: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errs.New(errs.Conflict, "write-ahead log in %s is in use by another process: two cannot share one data directory", dir)
	}
	return nil, fmt.Errorf("lock write-ahead log in %s: %w", dir, err)
}
