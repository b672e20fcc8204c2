package wal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// checkpointBlockBytes is the raw size of a block of a checkpoint.
	checkpointBlockBytes = 1 << 20
	// checkpointSyncBytes is how much of a checkpoint may wait in the page cache: a file system
	// that orders its journal makes the syncs of appends wait for it.
	checkpointSyncBytes = 16 << 20
)

// Checkpoint replaces all segments before `before`, and the checkpoint before them, by the records
// that write emits; a crash at any moment leaves either the old files or the new. The caller must
// have taken into account every record of those segments; Cut gives a number to pass. emit copies
// rec. One Checkpoint runs at a time, the next waits. Errors: those of write, the cause of ctx,
// Invalid (before names no closed segment), Unavailable (the disk refused; the log is unchanged).
func (l *Log) Checkpoint(ctx context.Context, before int, write func(emit func(rec []byte) error) error) error {
	if err := l.acquire(ctx); err != nil {
		return fmt.Errorf("checkpoint write-ahead log: %w", err)
	}
	defer l.release()
	if err := l.mayReplace(before); err != nil {
		return err
	}
	begun := time.Now()
	l.metrics.checkpoints.Inc()
	made, err := l.writeCheckpoint(ctx, before-1, write)
	if err != nil {
		l.metrics.checkpointsFailed.Inc()
		return fmt.Errorf("checkpoint write-ahead log in %s: %w", l.dir, err)
	}
	l.mu.Lock()
	l.check = made
	for n := range l.segments {
		if n <= made.number {
			delete(l.segments, n)
		}
	}
	l.mu.Unlock()
	l.sweep()
	l.report()
	l.metrics.truncateSeconds.Observe(time.Since(begun).Seconds())
	return nil
}

// mayReplace says whether the segments before `before` are closed and not replaced yet.
func (l *Log) mayReplace(before int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unusable(); err != nil {
		return err
	}
	if before <= max(l.check.number, 0) || before > l.number {
		return errs.New(errs.Invalid, "checkpoint before segment %d of a log that has a checkpoint of %d and writes segment %d", before, l.check.number, l.number)
	}
	return nil
}

// writeCheckpoint makes the checkpoint that replaces the segments up to number, durable under its
// name.
func (l *Log) writeCheckpoint(ctx context.Context, number int, write func(emit func(rec []byte) error) error) (checkpoint, error) {
	d := l.tune.disk
	name := l.path(checkpointName(number))
	f, err := d.Open(name+tempSuffix, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return checkpoint{}, errs.Wrap(errs.Unavailable, err)
	}
	w := checkpointWriter{l: l, file: f, salt: rand.Uint32()}
	err = w.begin(number)
	if err == nil {
		err = write(func(rec []byte) error { return w.emit(ctx, rec) })
	}
	if err == nil {
		err = w.finish(ctx)
	}
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = errs.Wrap(errs.Unavailable, closeErr)
	}
	if err == nil {
		err = errs.Wrap(errs.Unavailable, d.Rename(name+tempSuffix, name))
	}
	if err != nil {
		if removeErr := d.Remove(name + tempSuffix); removeErr != nil {
			l.log.Warn("unfinished checkpoint remains until the next start", "checkpoint", number, "err", removeErr)
		}
		return checkpoint{}, err
	}
	// Until the name is durable a power cut may undo the rename, so the old files must stay.
	if err := d.SyncDir(l.dir); err != nil {
		return checkpoint{}, errs.Wrap(errs.Unavailable, err)
	}
	return checkpoint{number, w.bytes}, nil
}

// checkpointWriter writes the blocks of one checkpoint. Its first error is its last.
type checkpointWriter struct {
	l          *Log
	file       file
	salt       uint32
	seq        uint64
	bytes      int64
	synced     int64 // bytes known to be on disk
	raw, frame []byte
	records    uint64
	err        error
}

func (w *checkpointWriter) begin(number int) error {
	h := fileHeader{kind: kindCheck, number: number, salt: w.salt}
	w.bytes = fileHeaderBytes
	return errs.Wrap(errs.Unavailable, writeAt(w.file, h.encode(), 0))
}

func (w *checkpointWriter) emit(ctx context.Context, rec []byte) error {
	if w.err != nil {
		return w.err
	}
	if len(rec) > maxRecordBytes {
		w.err = errs.New(errs.Invalid, "record of %d bytes exceeds the %d that the write-ahead log takes", len(rec), maxRecordBytes)
		return w.err
	}
	if len(w.raw) > 0 && len(w.raw)+len(rec) > checkpointBlockBytes {
		w.err = w.flush(ctx)
	}
	w.raw = appendRecord(w.raw, rec)
	w.records++
	return w.err
}

// flush writes what was emitted since the last flush.
func (w *checkpointWriter) flush(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if w.l.isClosed() {
		return w.l.errClosed
	}
	if len(w.raw) == 0 {
		return nil
	}
	err := w.block(w.raw, codecNone)
	w.raw = w.raw[:0]
	if err == nil && w.bytes-w.synced > checkpointSyncBytes {
		err = w.file.Sync()
		w.synced = w.bytes
	}
	return errs.Wrap(errs.Unavailable, err)
}

func (w *checkpointWriter) block(raw []byte, codec byte) error {
	w.frame = appendBlock(w.frame[:0], raw, blockHeader{salt: w.salt, seq: w.seq, codec: codec})
	err := writeAt(w.file, w.frame, w.bytes)
	w.bytes += int64(len(w.frame))
	w.seq++
	return err
}

// finish ends the checkpoint, with a block that tells a whole one from one cut short, and syncs it.
func (w *checkpointWriter) finish(ctx context.Context) error {
	if w.err != nil {
		return w.err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	err := w.block(checkpointEnd(w.records), codecEnd)
	if err == nil {
		err = w.file.Sync()
	}
	return errs.Wrap(errs.Unavailable, err)
}
