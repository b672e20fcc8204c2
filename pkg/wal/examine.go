package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Examined is what a look at one file of a log found.
type Examined struct {
	Name   string `json:"file" yaml:"file"`
	Bytes  int64  `json:"bytes" yaml:"bytes"`
	Blocks int    `json:"blocks" yaml:"blocks"` // whose checksums hold
	// Damage says what is wrong first; empty: nothing.
	Damage string `json:"damage,omitempty" yaml:"damage,omitempty"`
	// Torn says that only the end of the newest segment is not whole, as a crash leaves it, and as it
	// looks while it is written.
	Torn bool `json:"torn,omitempty" yaml:"torn,omitempty"`
}

// Examine looks at every file of the log in dir, in the order of their names, and changes nothing, so
// that the log may be in use. Damage is no error.
func Examine(dir string) ([]Examined, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the write-ahead log: %w", err)
	}
	var names []string
	newest := ""
	for _, e := range entries {
		if _, ok := parseNumber(e.Name()); ok {
			newest = max(newest, e.Name())
			names = append(names, e.Name())
		} else if rest, ok := strings.CutPrefix(e.Name(), checkpointPrefix); ok && !strings.HasSuffix(rest, tempSuffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	out := make([]Examined, 0, len(names))
	for _, name := range names {
		x, err := examine(filepath.Join(dir, name), name == newest)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func examine(path string, newest bool) (x Examined, err error) {
	f, err := os.Open(path)
	if err != nil {
		return x, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return x, err
	}
	x = Examined{Name: filepath.Base(path), Bytes: info.Size()}
	s := newScanner(f, x.Bytes)
	if s.headerErr != nil {
		x.Damage = s.headerErr.Error()
	}
	for {
		_, g, err := s.next()
		if g != nil {
			atEnd := errors.Is(err, io.EOF)
			x.Torn = newest && atEnd && x.Damage == ""
			if !x.Torn && x.Damage == "" {
				x.Damage = fmt.Sprintf("%d bytes at %d: %v", g.bytes, g.off, g.cause)
			}
		}
		if err != nil {
			return x, nil // io.EOF is the only one
		}
		x.Blocks++
	}
}
