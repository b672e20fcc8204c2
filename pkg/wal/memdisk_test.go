package wal

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// memDisk is a file system in memory that knows what a power cut leaves: only synced bytes under
// synced names are certain. Directories do not matter to it.
type memDisk struct {
	mu      sync.Mutex
	files   map[string]*memFile // as processes see it
	durable map[string]*memFile // names that survive a power cut
	space   int64               // bytes left; negative: no limit
	// fault is asked before every operation, without mu held; an error fails the operation.
	fault func(op, name string) error
	// after is told of every operation that changed something, with mu held.
	after func(op, name string)
}

// memFile is one inode.
type memFile struct {
	disk   *memDisk
	name   string
	data   []byte
	synced []byte
	dirty  [][2]int64 // ranges of data not yet synced
}

func newMemDisk() *memDisk {
	return &memDisk{files: map[string]*memFile{}, durable: map[string]*memFile{}, space: -1}
}

const sectorBytes = 512

// clone copies the disk as a copy of the directory would.
func (d *memDisk) clone() *memDisk { return d.survive(func(bool) bool { return true }) }

// cut returns what a power cut leaves: of what was not synced, some.
func (d *memDisk) cut(rng *rand.Rand) *memDisk {
	return d.survive(func(synced bool) bool { return synced || rng.IntN(2) == 0 })
}

// survive copies what keep keeps; it is asked for each name and each sector of unsynced data.
func (d *memDisk) survive(keep func(synced bool) bool) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.surviveLocked(keep)
}

func (d *memDisk) surviveLocked(keep func(synced bool) bool) *memDisk {
	out := newMemDisk()
	names := maps.Clone(d.files)
	maps.Copy(names, d.durable)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := d.durable[name]
		if f != d.files[name] && keep(false) {
			f = d.files[name]
		}
		if f == nil {
			continue
		}
		data := slices.Clone(f.synced)
		if keep(len(f.data) == len(f.synced)) {
			data = append(data, make([]byte, max(0, len(f.data)-len(data)))...)[:len(f.data)]
		}
		for off := 0; off < min(len(data), len(f.data)); off += sectorBytes {
			if end := min(off+sectorBytes, len(data), len(f.data)); keep(false) {
				copy(data[off:end], f.data[off:end])
			}
		}
		n := &memFile{disk: out, name: name, data: data, synced: slices.Clone(data)}
		out.files[name], out.durable[name] = n, n
	}
	return out
}

func (d *memDisk) ask(op, name string) error {
	d.mu.Lock()
	fault := d.fault
	d.mu.Unlock()
	if fault == nil {
		return nil
	}
	if err := fault(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (d *memDisk) setFault(f func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

func (d *memDisk) setSpace(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space = n
}

func (d *memDisk) done(op, name string) {
	if d.after != nil {
		d.after(op, name)
	}
}

func (d *memDisk) Open(path string, flag int) (file, error) {
	name := filepath.Base(path)
	if err := d.ask("open", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[name]
	switch {
	case !ok && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		f = &memFile{disk: d, name: name}
		d.files[name] = f
	case flag&os.O_TRUNC != 0:
		f.data, f.dirty = nil, nil
	}
	d.done("open", name)
	return f, nil
}

func (d *memDisk) Rename(from, to string) error {
	from, to = filepath.Base(from), filepath.Base(to)
	if err := d.ask("rename", from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	d.files[to] = f
	f.name = to
	delete(d.files, from)
	d.done("rename", to)
	return nil
}

func (d *memDisk) Remove(path string) error {
	name := filepath.Base(path)
	if err := d.ask("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.files[name]; ok && d.space >= 0 {
		d.space += int64(len(f.data))
	}
	delete(d.files, name)
	d.done("remove", name)
	return nil
}

func (d *memDisk) List(string) ([]entry, error) {
	if err := d.ask("list", ""); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []entry
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		out = append(out, entry{name, int64(len(d.files[name].data))})
	}
	return out, nil
}

func (d *memDisk) SyncDir(string) error {
	if err := d.ask("syncdir", ""); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = maps.Clone(d.files)
	d.done("syncdir", "")
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.disk.ask("read", f.name); err != nil {
		return 0, err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.disk.ask("write", f.name)
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil { // an error comes after some bytes have been written
		b = b[:len(b)/2]
	}
	if grow := off + int64(len(b)) - int64(len(f.data)); d.space >= 0 && grow > d.space {
		b = b[:max(0, int64(len(b))-(grow-d.space))]
		err = &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	end := off + int64(len(b))
	if grow := end - int64(len(f.data)); grow > 0 {
		f.data = append(f.data, make([]byte, grow)...)
		if d.space >= 0 {
			d.space -= grow
		}
	}
	copy(f.data[off:], b)
	f.dirty = append(f.dirty, [2]int64{off, end})
	d.done("write", f.name)
	return len(b), err
}

func (f *memFile) Truncate(size int64) error {
	if err := f.disk.ask("truncate", f.name); err != nil {
		return err
	}
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.space >= 0 {
		d.space += int64(len(f.data)) - size
	}
	f.data = f.data[:size]
	d.done("truncate", f.name)
	return nil
}

// Sync persists what is dirty. After a failure the dirty ranges count as clean though they are not
// on disk, as on Linux.
func (f *memFile) Sync() error {
	err := f.disk.ask("sync", f.name)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	dirty := f.dirty
	f.dirty = nil
	if err != nil {
		return err
	}
	f.synced = append(f.synced, make([]byte, max(0, len(f.data)-len(f.synced)))...)[:len(f.data)]
	for _, r := range dirty {
		end := min(r[1], int64(len(f.data)))
		if r[0] < end {
			copy(f.synced[r[0]:end], f.data[r[0]:end])
		}
	}
	f.disk.done("sync", f.name)
	return nil
}

func (f *memFile) Close() error { return f.disk.ask("close", f.name) }
