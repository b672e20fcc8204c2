// Package wal owns the write-ahead log of a process: one append-only log on local disk, shared by all
// tenants. A record is an opaque byte string. Appends that arrive while the disk is busy are batched:
// one goroutine compresses them as a block, writes it, syncs it once and wakes everyone whose record
// is in it.
//
// The log does not lose an acknowledged record by any fault it can detect. A failed write or fsync
// fails exactly the appends of its batch, and the log recovers by itself once the disk does. Replay
// cuts a torn tail, skips damaged places and reports them. FORMAT.md describes the files.
package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// segmentBytes is where a segment is closed. It bounds what one lost file costs and how finely
	// a checkpoint can drop the past.
	segmentBytes = 128 << 20
	// batchBytes is where a batch is closed: at 10 ms a sync it still carries 400 MB/s.
	batchBytes = 4 << 20
	// queueBytes bounds what waits for the disk, in memory. At 50 MB/s it rides out a stall of more
	// than a second; beyond that, refusing is kinder to the process than growing.
	queueBytes = 64 << 20
	// controlWait bounds Cut and Close on a disk that hangs.
	controlWait = 30 * time.Second
)

// Config of the log.
type Config struct {
	Sync bool
}

// Declare names each setting once: flag, YAML key, default and doc come from this line.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.Sync, "sync", true, "Acknowledge a push only after its samples are synced to disk. False leaves them in the page cache: a crash of the process loses nothing, a power cut loses up to the last minute.")
}

// Options of Open.
type Options struct {
	Config
	Logger *slog.Logger          // nil: slog.Default
	Reg    prometheus.Registerer // nil: metrics are not exposed
}

// tuning holds what is constant in service and small or faulty in tests.
type tuning struct {
	disk         disk
	segmentBytes int64
	batchBytes   int
	queueBytes   int
}

// Log is an open write-ahead log. All methods are safe for concurrent use.
type Log struct {
	dir     string
	sync    bool
	tune    tuning
	log     *slog.Logger
	metrics *metrics
	lock    *os.File

	errClosed, errFull, errNotReplayed error // made once, since an overload returns them often

	busy chan struct{} // holds a token while Replay or Checkpoint runs

	mu       sync.Mutex // guards the fields below
	wake     sync.Cond  // signalled when queue becomes longer
	started  bool       // Replay has ended and the committer runs
	closed   bool
	queue    []*batch      // in order; only the last may still grow
	queued   int           // bytes in queue and in the batch being written
	free     [][]byte      // buffers of past batches
	number   int           // of the current segment
	segments map[int]int64 // bytes by number
	check    checkpoint
}

// checkpoint is the newest checkpoint on disk.
type checkpoint struct {
	number int // the last segment it replaces; -1: there is none
	bytes  int64
}

// batch is what the committer takes at a time: records, or a command.
type batch struct {
	buf     []byte // raw block
	records int
	cut     bool      // close the segment
	stop    bool      // end the committer
	end     *Position // where to say where the log ends
	out     *outcome
}

// command says whether b takes no records.
func (b *batch) command() bool { return b.cut || b.stop || b.end != nil }

// outcome of a batch; segment and err are set before done is closed.
type outcome struct {
	done    chan struct{}
	segment int
	err     error
}

func (o *outcome) settle(segment int, err error) {
	o.segment, o.err = segment, err
	close(o.done)
}

// Ticket stands for one appended record. It may be waited for any number of times, or never.
type Ticket struct {
	out *outcome
	err error // the append was refused
}

// Wait returns once the record is on disk, with the segment it lies in. Errors: Unavailable (not
// in the log; safe to send again), Invalid (larger than a record may be), or the cause of ctx, after
// which the record may still reach the disk.
func (t Ticket) Wait(ctx context.Context) (segment int, err error) {
	if t.err != nil {
		return 0, t.err
	}
	select {
	case <-t.out.done:
		return t.out.segment, t.out.err
	default:
	}
	select {
	case <-t.out.done:
		return t.out.segment, t.out.err
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the write-ahead log: %w", context.Cause(ctx))
	}
}

// Open opens the log in dir, which it creates and locks. Replay must follow. Errors: Conflict
// (another process has the log open), Unavailable (the disk does not work).
func Open(dir string, opts Options) (*Log, error) {
	return open(dir, opts, tuning{osDisk{}, segmentBytes, batchBytes, queueBytes})
}

func open(dir string, opts Options, tune tuning) (*Log, error) {
	if err := makeDir(dir); err != nil {
		return nil, errs.New(errs.Unavailable, "create write-ahead log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	l := &Log{
		dir: dir, sync: opts.Sync, tune: tune, lock: lock,
		log:            opts.Logger.With("dir", dir),
		errClosed:      errs.New(errs.Unavailable, "write-ahead log in %s is closed", dir),
		errFull:        errs.New(errs.Unavailable, "write-ahead log in %s takes no more: %d bytes wait for the disk already", dir, tune.queueBytes),
		errNotReplayed: errs.New(errs.Unavailable, "write-ahead log in %s has not been replayed yet", dir),
		busy:           make(chan struct{}, 1),
		segments:       map[int]int64{},
		check:          checkpoint{number: -1},
	}
	l.wake.L = &l.mu
	if err := l.survey(); err != nil {
		return nil, errors.Join(errs.New(errs.Unavailable, "open write-ahead log in %s: %w", dir, err), lock.Close())
	}
	l.metrics = newMetrics(opts.Reg)
	l.report()
	return l, nil
}

// Append copies rec into the batch that is written next. It never blocks on the disk: when too
// much waits for it already, the ticket carries the refusal. Records are replayed in the order of
// their appends.
func (l *Log) Append(rec []byte) Ticket {
	if len(rec) > maxRecordBytes {
		return Ticket{err: errs.New(errs.Invalid, "record of %d bytes exceeds the %d that the write-ahead log takes", len(rec), maxRecordBytes)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return Ticket{err: l.errClosed}
	case !l.started:
		return Ticket{err: l.errNotReplayed}
	case l.queued > 0 && l.queued+len(rec) > l.tune.queueBytes:
		l.metrics.refused.Inc()
		return Ticket{err: l.errFull}
	}
	b := l.tail(len(rec))
	before := len(b.buf)
	b.buf = appendRecord(b.buf, rec)
	b.records++
	l.queued += len(b.buf) - before
	return Ticket{out: b.out}
}

// tail returns the batch that a record of n bytes joins. l.mu is held.
func (l *Log) tail(n int) *batch {
	if k := len(l.queue); k > 0 {
		b := l.queue[k-1]
		if !b.command() && len(b.buf)+n <= l.tune.batchBytes {
			return b
		}
	}
	b := &batch{}
	if k := len(l.free); k > 0 {
		b.buf, l.free = l.free[k-1], l.free[:k-1]
	}
	l.enqueue(b)
	return b
}

// enqueue hands b to the committer. l.mu is held.
func (l *Log) enqueue(b *batch) {
	b.out = &outcome{done: make(chan struct{})}
	l.queue = append(l.queue, b)
	l.wake.Signal()
}

// Cut closes the current segment and starts the next: every record appended before lies in an
// earlier segment than newSegment, every record appended afterwards in newSegment or a later one.
// A segment that holds no record yet stays the current one. Errors: Unavailable.
func (l *Log) Cut() (newSegment int, err error) {
	l.mu.Lock()
	if err := l.unusable(); err != nil {
		l.mu.Unlock()
		return 0, err
	}
	b := &batch{cut: true}
	l.enqueue(b)
	l.mu.Unlock()
	return l.await(b.out, "cut")
}

// unusable says why the log takes no command. l.mu is held.
func (l *Log) unusable() error {
	switch {
	case l.closed:
		return l.errClosed
	case !l.started:
		return l.errNotReplayed
	}
	return nil
}

// await waits for a command, which must not take for ever.
func (l *Log) await(o *outcome, what string) (int, error) {
	limit := time.NewTimer(controlWait)
	defer limit.Stop()
	select {
	case <-o.done:
		return o.segment, o.err
	case <-limit.C:
		return 0, errs.New(errs.Unavailable, "%s write-ahead log in %s: the disk did not answer within %s", what, l.dir, controlWait)
	}
}

// Segments returns the numbers of the oldest segment that is kept and of the current one.
func (l *Log) Segments() (first, last int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.number
	for n := range l.segments {
		first = min(first, n)
	}
	return first, l.number
}

// Bytes returns the size of segments and checkpoint on disk.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes()
}

// bytes needs l.mu.
func (l *Log) bytes() int64 {
	total := l.check.bytes
	for _, n := range l.segments {
		total += n
	}
	return total
}

// report sets the gauges.
func (l *Log) report() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.segment.Set(float64(l.number))
	l.metrics.storageBytes.Set(float64(l.bytes()))
	l.metrics.queuedBytes.Set(float64(l.queued))
}

// Close writes and syncs what was appended and releases the directory; later appends fail with
// Unavailable. It waits for a running Checkpoint, which fails early. Close of a closed log does
// nothing. Errors: Unavailable (the last sync failed, or the disk hangs, in which case the lock is
// kept until the process ends).
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	running := l.started
	b := &batch{stop: true}
	if running {
		l.enqueue(b)
	}
	l.mu.Unlock()

	var err error
	if running {
		if _, err = l.await(b.out, "close"); err != nil && !closedOutcome(b.out) {
			return err
		}
	}
	limit := time.NewTimer(controlWait)
	defer limit.Stop()
	select {
	case l.busy <- struct{}{}:
	case <-limit.C:
		return errs.New(errs.Unavailable, "close write-ahead log in %s: replay or checkpoint did not end within %s", l.dir, controlWait)
	}
	defer l.release()
	return errors.Join(err, l.lock.Close())
}

// closedOutcome says whether o is settled.
func closedOutcome(o *outcome) bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// isClosed says whether Close was called.
func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
