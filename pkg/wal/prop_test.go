package wal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// modelled is what one random run knows must be in the log: acked in order, with the segment each
// record was said to lie in, and unsure ones that may or may not be found.
type modelled struct {
	rng    *rand.Rand
	disk   *memDisk
	log    *rig
	next   int
	acked  []placed
	unsure map[string]bool
}

type placed struct {
	rec     string
	segment int
}

// TestALogEqualsItsModel runs random appends, cuts, checkpoints, faults, crashes, power cuts and
// reopens, and compares each replay with a list in memory.
func TestALogEqualsItsModel(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		m := modelled{rng: rand.New(rand.NewPCG(seed, 99)), disk: newMemDisk(), unsure: map[string]bool{}}
		m.reopen(t, seed)
		for range 60 {
			m.step(t, seed)
		}
		m.disk.setFault(nil)
		m.reopen(t, seed)
		m.log.Close()
	}
}

func (m *modelled) step(t *testing.T, seed uint64) {
	switch k := m.rng.IntN(100); {
	case k < 60:
		m.appends(1 + m.rng.IntN(40))
	case k < 70:
		_, _ = m.log.Cut() // the disk may be failing; the model only says what must survive
	case k < 80:
		m.checkpoints(t)
	case k < 86:
		failing(m.disk, syscall.EIO, []string{"write", "sync", "syncdir", "open", "truncate", "remove", "rename"}[m.rng.IntN(7)])
		m.appends(1 + m.rng.IntN(10))
		m.checkpoints(t)
		m.disk.setFault(nil)
	case k < 90:
		if err := m.log.Close(); err != nil {
			t.Fatalf("seed %d: close: %v", seed, err)
		}
		m.reopen(t, seed)
	case k < 95: // the process is killed
		m.disk = m.disk.clone()
		m.reopen(t, seed)
	default:
		m.disk = m.disk.cut(m.rng)
		m.reopen(t, seed)
	}
}

func (m *modelled) appends(n int) {
	var tickets []Ticket
	var recs []string
	for range n {
		rec := fmt.Sprintf("%06d-%s", m.next, incompressible(m.rng.IntN(300)))
		m.next++
		tickets = append(tickets, m.log.Append([]byte(rec)))
		recs = append(recs, rec)
	}
	for i, ticket := range tickets {
		segment, err := ticket.Wait(context.Background())
		if err != nil {
			m.unsure[recs[i]] = true
			continue
		}
		m.acked = append(m.acked, placed{recs[i], segment})
	}
}

func (m *modelled) checkpoints(t *testing.T) {
	first, last := m.log.Segments()
	if last == 0 {
		return
	}
	before := max(1, first+m.rng.IntN(last-first+1))
	if m.log.check.number >= before {
		return
	}
	var recs []string
	for _, p := range m.acked {
		if p.segment < before {
			recs = append(recs, p.rec)
		}
	}
	// A failure leaves the old files, which hold the same records.
	if err := m.log.Checkpoint(t.Context(), before, emitAll(recs...)); err != nil {
		t.Logf("checkpoint: %v", err)
	}
}

// reopen replays the disk and takes what it finds as the new truth.
func (m *modelled) reopen(t *testing.T, seed uint64) {
	t.Helper()
	if m.log != nil {
		m.log.Close()
	}
	m.log = openOn(t, m.disk, t.TempDir(), true)
	var found []placed
	stats, err := m.log.Replay(t.Context(), func(segment int, rec []byte) error {
		found = append(found, placed{string(rec), segment})
		return nil
	})
	if err != nil || stats.Corruptions != 0 {
		t.Fatalf("seed %d: replay: %v, %+v\n%s", seed, err, stats, m.log.logs)
	}
	var sure []string
	for i, p := range found {
		if i > 0 && found[i-1].rec >= p.rec {
			t.Fatalf("seed %d: %.6s after %.6s", seed, p.rec, found[i-1].rec)
		}
		if !m.unsure[p.rec] {
			sure = append(sure, p.rec)
		}
	}
	var want []string
	for _, p := range m.acked {
		want = append(want, p.rec)
	}
	want = slices.DeleteFunc(want, func(rec string) bool { return m.unsure[rec] })
	if !slices.Equal(sure, want) {
		t.Fatalf("seed %d: replayed %d records, want %d\n%s", seed, len(sure), len(want), m.log.logs)
	}
	m.acked = found
}
