package alertmanager

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wal"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// journalPiece is the size at which a tenant's state is cut into several records.
	journalPiece = 1 << 20
	// journalGrown is how large the journal may become beyond what its last rewriting left.
	journalGrown = 32 << 20
	// journalTurn is how often it is rewritten that did not grow so much.
	journalTurn = time.Hour
	// journalWait bounds the wait for the disk.
	journalWait = 10 * time.Second
)

// The kinds of records of the journal. A record is its kind, the tenant, and what upstream's alertmanagers
// exchange of that kind.
const (
	journalSilences      = byte('s')
	journalNotifications = byte('n')
	journalForget        = byte('f') // the tenant's state was deleted
)

var errJournal = errors.New("record of the journal is damaged")

// journal keeps what this replica knows of silences and notifications on its disk, so that it is known
// after all replicas were killed at once. All tenants share it. A nil journal keeps nothing.
type journal struct {
	log     *slog.Logger
	metrics *metrics
	wal     *wal.Log

	mu        sync.Mutex // guards what follows
	kept      map[tenant.ID][]*pb.State
	left      int64 // bytes after the last rewriting
	rewritten time.Time
}

// openJournal reads the journal in dir. What it says of tenants is kept until they are started.
func openJournal(ctx context.Context, dir string, log *slog.Logger, m *metrics) (*journal, error) {
	w, err := wal.Open(dir, wal.Options{Config: wal.Config{Sync: true}, Logger: log})
	if err != nil {
		return nil, err
	}
	j := &journal{log: log, metrics: m, wal: w, kept: map[tenant.ID][]*pb.State{}, rewritten: time.Now()}
	stats, err := w.Replay(ctx, func(_ int, rec []byte) error {
		if err := j.replay(rec); err != nil {
			m.journalFailures.Inc()
			log.Error("record of the journal left out, a silence or what was notified may be forgotten", "err", err)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	m.journalFailures.Add(float64(stats.Corruptions))
	j.left = w.Bytes()
	return j, nil
}

func (j *journal) replay(rec []byte) error {
	kind, id, data, err := decodeRecord(rec)
	if err != nil {
		return err
	}
	switch kind {
	case journalSilences:
		j.kept[id] = append(j.kept[id], &pb.State{Silences: bytes.Clone(data)})
	case journalNotifications:
		j.kept[id] = append(j.kept[id], &pb.State{Notifications: bytes.Clone(data)})
	case journalForget:
		delete(j.kept, id)
	}
	return nil
}

func encodeRecord(kind byte, id tenant.ID, data []byte) []byte {
	out := make([]byte, 0, 1+binary.MaxVarintLen32+len(id)+len(data))
	return append(protowire.AppendString(append(out, kind), string(id)), data...)
}

func decodeRecord(rec []byte) (kind byte, id tenant.ID, data []byte, err error) {
	if len(rec) == 0 {
		return 0, "", nil, errJournal
	}
	name, n := protowire.ConsumeBytes(rec[1:])
	if n < 0 {
		return 0, "", nil, errJournal
	}
	if id, err = tenant.Parse(string(name)); err != nil {
		return 0, "", nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	return rec[0], id, rec[1+n:], nil
}

// add writes data of a tenant. It does not wait.
func (j *journal) add(kind byte, id tenant.ID, data []byte) wal.Ticket {
	return j.wal.Append(encodeRecord(kind, id, data))
}

// recall merges what the journal has of a tenant that is being started into s.
func (j *journal) recall(ctx context.Context, s *state) (found bool) {
	if j == nil {
		return false
	}
	j.mu.Lock()
	kept := j.kept[s.id]
	j.mu.Unlock()
	for _, x := range kept {
		if err := s.merge(ctx, x); err != nil {
			j.metrics.journalFailures.Inc()
			j.log.Error("record of the journal left out, a silence or what was notified may be forgotten", "tenant", string(s.id), "err", err)
		}
	}
	return len(kept) > 0
}

// has says whether there is something of a tenant that was not started since.
func (j *journal) has(id tenant.ID) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.kept[id]) > 0
}

// taken drops what was recalled: a running instance has it.
func (j *journal) taken(id tenant.ID) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.kept, id)
}

// forget drops a tenant whose state was deleted.
func (j *journal) forget(id tenant.ID) {
	if j == nil {
		return
	}
	j.taken(id)
	if _, err := j.add(journalForget, id, nil).Wait(context.Background()); err != nil {
		j.metrics.journalFailures.Inc()
		j.log.Warn("deleted state of a tenant stays in the journal", "tenant", string(id), "err", err)
	}
}

// due says whether it is time to rewrite the journal.
func (j *journal) due() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	size := j.wal.Bytes()
	return size > 2*j.left+journalGrown || time.Since(j.rewritten) > journalTurn && (size > j.left || len(j.kept) > 0)
}

// rewrite replaces all records by the state of the running tenants, and by what is kept of those that may
// still be started here. running is called after the journal was cut, so that every earlier change is in it.
func (j *journal) rewrite(ctx context.Context, mine func(tenant.ID) bool, running func() []*instance) error {
	before, err := j.wal.Cut()
	if err != nil {
		return err
	}
	kept := j.keepOnly(mine)
	err = j.wal.Checkpoint(ctx, before, func(emit func([]byte) error) error {
		for id, all := range kept {
			for _, s := range all {
				if err := emitState(id, s, emit); err != nil {
					return err
				}
			}
		}
		for _, in := range running() {
			s, err := in.durable()
			if err == nil {
				err = emitState(in.id, s, emit)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left, j.rewritten = j.wal.Bytes(), time.Now()
	return nil
}

// keepOnly drops what is kept of other tenants than mine, and returns the rest.
func (j *journal) keepOnly(mine func(tenant.ID) bool) map[tenant.ID][]*pb.State {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.kept, func(id tenant.ID, _ []*pb.State) bool { return !mine(id) })
	return maps.Clone(j.kept)
}

// emitState emits s as records that are not too large.
func emitState(id tenant.ID, s *pb.State, emit func([]byte) error) error {
	for kind, data := range map[byte][]byte{journalSilences: s.GetSilences(), journalNotifications: s.GetNotifications()} {
		for len(data) > 0 {
			n, err := piece(data)
			if err != nil {
				return err
			}
			if err := emit(encodeRecord(kind, id, data[:n])); err != nil {
				return err
			}
			data = data[n:]
		}
	}
	return nil
}

// piece returns how many bytes of data, a sequence of messages that are preceded by their lengths, make
// about one record.
func piece(data []byte) (int, error) {
	n := 0
	for n < len(data) && n < journalPiece {
		size, k := protowire.ConsumeVarint(data[n:])
		if k < 0 || size > uint64(len(data)-n-k) { //nolint:gosec // Both are positive.
			return 0, errJournal
		}
		n += k + int(size) //nolint:gosec // Not over the length of data.
	}
	return n, nil
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.wal.Close()
}

// durability is what one tenant's replica wrote to the journal and did not wait for yet.
type durability struct {
	id tenant.ID
	to *journal

	mu      sync.Mutex // guards what follows
	last    uint64     // number of the newest ticket
	tickets []ticket
}

// ticket is a numbered one.
type ticket struct {
	wal.Ticket
	number uint64
}

// add writes data without waiting.
func (d *durability) add(kind byte, data []byte) {
	if d.to == nil || len(data) == 0 {
		return
	}
	t := d.to.add(kind, d.id, data)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.tickets = append(d.tickets, ticket{t, d.last})
}

// wait returns once everything that was added before is on disk. Errors: Unavailable.
func (d *durability) wait(ctx context.Context) error {
	d.mu.Lock()
	all, last := slices.Clone(d.tickets), d.last
	d.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, journalWait)
	defer cancel()
	var problem error
	for _, t := range all {
		if _, err := t.Wait(ctx); err != nil {
			problem = err
		}
	}
	if ctx.Err() == nil {
		d.mu.Lock()
		d.tickets = slices.DeleteFunc(d.tickets, func(t ticket) bool { return t.number <= last })
		d.mu.Unlock()
	}
	if problem != nil {
		d.to.metrics.journalFailures.Inc()
		return errs.New(errs.Unavailable, "write the journal: %w", problem)
	}
	return nil
}
