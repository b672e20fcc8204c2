package members

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// rememberEvery is how often the memory is written although nothing changed, so that it tells how
	// long a process was away.
	rememberEvery = 5 * time.Minute
	// recallWithin is how long a process may have been away for what it remembers to be of use. In a
	// longer time, members may have left for good.
	recallWithin = time.Hour
	// maxMemoryBytes bounds the file: a thousand members with 4,096 tokens.
	maxMemoryBytes = 64 << 20
)

// Memory is who was in the ring, kept in a file. The ring itself lives in gossip, and is forgotten when
// all processes are down at once. Those that start first would then take themselves for all there
// are, and answer queries without the samples of the others.
type Memory struct {
	Path string

	written time.Time
	of      uint64 // fingerprint of what was written
}

// remembered is the file.
type remembered struct {
	Saved   int64              `json:"saved"` // Unix seconds
	Members []rememberedMember `json:"members"`
}

type rememberedMember struct {
	ID              string   `json:"id"`
	Address         string   `json:"address"`
	Zone            string   `json:"zone"`
	State           string   `json:"state"`
	Heartbeat       int64    `json:"heartbeat"`
	Registered      int64    `json:"registered"`
	ReadOnly        bool     `json:"read_only,omitempty"`
	ReadOnlyUpdated int64    `json:"read_only_updated,omitempty"`
	Relieved        bool     `json:"relieved,omitempty"`
	Tokens          []uint32 `json:"tokens"`
}

// remember writes d if it differs from what was written, or if that was long ago.
func (m *Memory) remember(d *ring.Desc, now time.Time) error {
	of := fingerprint(d)
	if of == m.of && now.Sub(m.written) < rememberEvery {
		return nil
	}
	file := remembered{Saved: now.Unix()}
	for id, e := range d.Ingesters {
		if e.State == ring.LEFT {
			continue
		}
		file.Members = append(file.Members, rememberedMember{
			ID: id, Address: e.Addr, Zone: e.Zone, State: e.State.String(), Heartbeat: e.Timestamp, Registered: e.RegisteredTimestamp,
			ReadOnly: e.ReadOnly, ReadOnlyUpdated: e.ReadOnlyUpdatedTimestamp, Relieved: Relieved(e), Tokens: e.Tokens,
		})
	}
	b, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if err := replaceFile(m.Path, b); err != nil {
		return errs.New(errs.Unavailable, "write %s: %w", m.Path, err)
	}
	m.of, m.written = of, now
	return nil
}

// fingerprint changes with all that is remembered of d but the heartbeats.
func fingerprint(d *ring.Desc) uint64 {
	sum := uint64(1)
	for id, e := range d.Ingesters {
		sum += xxhash.Sum64String(fmt.Sprint(id, "\xff", e.Addr, "\xff", e.Zone, e.State, e.RegisteredTimestamp, e.ReadOnly, e.ReadOnlyUpdatedTimestamp, e.Tokens))
	}
	return sum
}

// replaceFile makes b the content of path, on disk when it returns.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Recall puts the remembered members into the ring if that is empty, and returns how many there were.
// They count as silent until they come back. Errors: Unavailable; a memory that cannot be read is
// no reason to fail, and is reported as Invalid.
func (m *Memory) Recall(ctx context.Context, store kv.Client, key string, now time.Time) (int, error) {
	d, err := load(ctx, store, key)
	if err != nil || len(d.Ingesters) > 0 {
		return 0, err
	}
	file, err := m.read()
	if err != nil || now.Sub(time.Unix(file.Saved, 0)) > recallWithin {
		return 0, err
	}
	n := 0
	err = change(ctx, store, key, func(d *ring.Desc) bool {
		n = 0
		if len(d.Ingesters) > 0 {
			return false
		}
		for _, e := range file.Members {
			member := ring.InstanceDesc{
				Id: e.ID, Addr: e.Address, Zone: e.Zone, State: ring.InstanceState(ring.InstanceState_value[e.State]), Timestamp: e.Heartbeat,
				RegisteredTimestamp: e.Registered, ReadOnly: e.ReadOnly, ReadOnlyUpdatedTimestamp: e.ReadOnlyUpdated, Tokens: e.Tokens,
			}
			if e.Relieved {
				member.Versions = ring.InstanceVersions{relievedMark: 1}
			}
			d.Ingesters[e.ID] = member
			n++
		}
		return n > 0
	})
	return n, err
}

func (m *Memory) read() (remembered, error) {
	var file remembered
	info, err := os.Stat(m.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err == nil && info.Size() > maxMemoryBytes {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(m.Path)
	}
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		return remembered{}, errs.New(errs.Invalid, "read %s: %w", m.Path, err)
	}
	return file, nil
}

// Forget removes the memory of a member that leaves for good.
func (m *Memory) Forget() error {
	if err := os.Remove(m.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Unavailable, "forget the ring: %w", err)
	}
	return nil
}
