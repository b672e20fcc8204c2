package exporting

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// place is where an export goes.
type place interface {
	// empty says whether nothing is there.
	empty() (bool, error)
	// take writes a window that ends with the millisecond end behind what counts, and says in s what counts then.
	take(body io.Reader, s *state, end int64) error
	// settle makes what counts of s safe, and drops the rest.
	settle(s *state) error
	io.Closer
}

// open returns the place that the command names.
func (c *command) open() (place, error) {
	if c.form == columnar {
		return directory{c.file, c.omit}, os.MkdirAll(c.file, 0o700)
	}
	f, err := os.OpenFile(c.file, os.O_RDWR|os.O_CREATE, 0o600)
	return single{f, c.form == lines}, err
}

// single is a file that has all windows.
type single struct {
	*os.File
	lines bool
}

func (f single) empty() (bool, error) {
	info, err := f.Stat()
	return err == nil && info.Size() == 0, err
}

func (f single) take(body io.Reader, s *state, _ int64) error {
	if _, err := f.Seek(s.Bytes, io.SeekStart); err != nil {
		return err
	}
	if f.lines {
		return copyLines(f, body, s)
	}
	w := &tail{w: f}
	n, err := io.Copy(w, body)
	if err != nil {
		return w.told(err)
	}
	s.Bytes += n
	return nil
}

func (f single) settle(s *state) error {
	if err := f.Truncate(s.Bytes); err != nil {
		return err
	}
	return f.Sync()
}

// directory is one with a file of Parquet for each window: what such a file has is said at its end, so it
// cannot be continued. Those that are not whole have another name.
type directory struct {
	path string
	omit bool // native histograms are left out
}

// partSuffix is of a file that is not whole, after the one of files that are.
const wholeSuffix, partSuffix = ".parquet", ".part"

func (d directory) Close() error { return nil }

func (d directory) empty() (bool, error) {
	entries, err := os.ReadDir(d.path)
	return len(entries) == 0, err
}

func (d directory) take(body io.Reader, s *state, end int64) (err error) {
	name := filepath.Join(d.path, time.UnixMilli(s.Next).UTC().Format("20060102T150405.000Z")+wholeSuffix)
	f, err := os.Create(name + partSuffix)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	rows, err := copyFrames(f, body, s.Next, end, d.omit)
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if rows == 0 {
		return os.Remove(f.Name())
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	s.Bytes += info.Size()
	return os.Rename(f.Name(), name)
}

// settle drops what a process left that was killed.
func (d directory) settle(*state) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), wholeSuffix+partSuffix) {
			if err := os.Remove(filepath.Join(d.path, e.Name())); err != nil {
				return err
			}
		}
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
