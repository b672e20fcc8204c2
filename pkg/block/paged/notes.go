package paged

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A local copy has a file of notes beside it: which pages are there, with their checksums. It is
// written from time to time, and when the process stops in order. Pages are checked against it when they are first used,
// so a copy that a crash left behind with old notes is no danger.
const (
	pagesSuffix = ".pages"
	notesSuffix = ".notes"
	notesMagic  = "amphora pages 1\n"
)

// fileOf is the name of the local copy of an object. Objects have names of tenants, block IDs and
// digits, so escaping the separator is enough to keep them apart.
func fileOf(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(name) + pagesSuffix
}

func nameOf(file string) string {
	return strings.NewReplacer("%2F", "/", "%25", "%").Replace(strings.TrimSuffix(file, pagesSuffix))
}

func removeFiles(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if nerr := os.Remove(path + notesSuffix); nerr != nil && !errors.Is(nerr, fs.ErrNotExist) {
		err = errors.Join(err, nerr)
	}
	return err
}

// note writes down what is on the disk of e.
func (p *pages) note(e *entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.changed {
		return nil
	}
	b := append([]byte(notesMagic), binary.LittleEndian.AppendUint64(nil, uint64(p.size))...)
	for _, s := range p.sums {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	tmp := e.path + notesSuffix + ".tmp"
	if err := os.WriteFile(tmp, b, 0o640); err != nil {
		return fmt.Errorf("note the local copy of %s: %w", e.name, err)
	}
	if err := os.Rename(tmp, e.path+notesSuffix); err != nil {
		return fmt.Errorf("note the local copy of %s: %w", e.name, err)
	}
	p.changed = false
	return nil
}

// takeOver opens what an earlier process left, and deletes what has no notes or bad ones.
func (c *Cache) takeOver() error {
	entries, err := os.ReadDir(c.o.Dir)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, d := range entries {
		file := d.Name()
		if !strings.HasSuffix(file, pagesSuffix) {
			continue
		}
		path := filepath.Join(c.o.Dir, file)
		e, ok := readNotes(path, nameOf(file))
		if !ok || c.bytes+e.bytes > c.o.MaxBytes {
			continue
		}
		c.files[e.name] = e
		e.place = c.unused.PushBack(e)
		c.bytes += e.bytes
		taken[file], taken[file+notesSuffix] = true, true
	}
	for _, d := range entries {
		if !taken[d.Name()] {
			if err := os.RemoveAll(filepath.Join(c.o.Dir, d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func readNotes(path, name string) (*entry, bool) {
	b, err := os.ReadFile(path + notesSuffix)
	if err != nil || len(b) < len(notesMagic)+8 || !bytes.HasPrefix(b, []byte(notesMagic)) {
		return nil, false
	}
	b = b[len(notesMagic):]
	size := int64(binary.LittleEndian.Uint64(b))
	b = b[8:]
	info, err := os.Stat(path)
	if err != nil || size <= 0 || info.Size() != size || int64(len(b)) != (size+pageSize-1)/pageSize*4 {
		return nil, false
	}
	e := &entry{name: name, path: path, size: size, disk: newPages(size)}
	for i := range e.disk.sums {
		e.disk.sums[i] = binary.LittleEndian.Uint32(b[4*i:])
		if e.disk.sums[i] != 0 {
			e.bytes += e.disk.length(i)
		}
	}
	return e, true
}
