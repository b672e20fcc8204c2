package ha

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// rememberPeriod is how often the file is brought up to date. What was heard since is lost with a
// process that is killed, and a failover is that much early at worst.
const rememberPeriod = 5 * time.Second

// recall puts what the file remembers into the store. What cannot be read is no reason to fail: the
// next replica that sends is elected.
func (t *Tracker) recall(ctx context.Context) {
	s, err := readState(t.deps.File)
	if err == nil {
		by := map[string]map[clusterKey]election{}
		for k, e := range s.elections {
			at := storeKey(k.tenant)
			if by[at] == nil {
				by[at] = map[clusterKey]election{}
			}
			by[at][k] = e
		}
		for at, elections := range by {
			_, perr := t.join(ctx, at, elections)
			err = errors.Join(err, perr)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.deps.Logger.Warn("elected replicas not remembered, those that send first are elected", "err", err)
	}
}

func readState(path string) (*State, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateBytes+1))
	if err != nil {
		return nil, err
	}
	v, err := Codec{}.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return stateOf(v), nil
}

// remember writes who is elected to the file.
func (t *Tracker) remember() {
	s := newState()
	for _, c := range t.list() {
		c.mu.Lock()
		if e := c.known; e.live() {
			e.receivedAt = max(e.receivedAt, c.here.UnixMilli())
			s.elections[c.key] = e
		}
		c.mu.Unlock()
	}
	b, err := Codec{}.Encode(s)
	if err == nil {
		err = replace(t.deps.File, b)
	}
	if failing := err != nil; failing != t.forgetful {
		t.forgetful = failing
		if failing {
			t.deps.Logger.Warn("elected replicas not written to disk, a restart forgets them", "err", err)
		}
	}
}

// replace makes b the content of path. A file that is cut short by a power cut is not read.
func replace(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	next := path + ".tmp"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
