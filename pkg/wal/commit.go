package wal

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// committer writes batches, one at a time. Only its goroutine touches it.
type committer struct {
	l   *Log
	seq uint64 // of the next block

	file   file // current segment; nil: to be created by the next batch
	number int  // of the current segment
	bytes  int64
	salt   uint32
	// abandoned says that the segment before the current one ends in blocks that were never
	// acknowledged. The header of the next segment repeats it.
	abandoned bool

	frame   []byte // reused
	failing bool   // the last batch failed, which has been logged
	behind  *retired
}

// retired is a closed segment that is being synced.
type retired struct {
	number int
	done   chan error
}

// run writes batches until it is told to stop.
func (c *committer) run() {
	for {
		b := c.l.take()
		switch {
		case b.cut:
			b.out.settle(c.cut(), nil)
		case b.end != nil:
			var err error
			*b.end, err = c.end()
			b.out.settle(c.number, err)
		case b.stop:
			b.out.settle(c.number, c.stop())
			return
		default:
			err := c.commit(b)
			c.note(err)
			c.l.written(b, c)
			b.out.settle(c.number, err)
		}
	}
}

// take returns the oldest batch and waits for one when there is none.
func (l *Log) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		l.wake.Wait()
	}
	b := l.queue[0]
	copy(l.queue, l.queue[1:])
	l.queue[len(l.queue)-1] = nil
	l.queue = l.queue[:len(l.queue)-1]
	return b
}

// freeBuffers bounds the buffers kept for later batches.
const freeBuffers = 4

// written takes the buffer of b back and records where the committer stands.
func (l *Log) written(b *batch, c *committer) {
	l.mu.Lock()
	l.queued -= len(b.buf)
	if len(l.free) < freeBuffers && cap(b.buf) <= 2*l.tune.batchBytes {
		l.free = append(l.free, b.buf[:0])
	}
	b.buf = nil
	l.place(c)
	l.mu.Unlock()
	l.report()
}

// place records the current segment. l.mu is held.
func (l *Log) place(c *committer) {
	l.number = c.number
	if c.file != nil {
		l.segments[c.number] = c.bytes
	}
}

// commit writes b as one block and syncs it. After an error nothing of b will be replayed unless
// the process ends before the next batch is written.
func (c *committer) commit(b *batch) error {
	m := c.l.metrics
	m.batchBytes.Observe(float64(len(b.buf)))
	if err := c.encode(b); err != nil {
		return c.failure("create", err)
	}
	if err := writeAt(c.file, c.frame, c.bytes); err != nil {
		err = c.failure("write", err)
		if cutErr := c.file.Truncate(c.bytes); cutErr != nil {
			c.abandon()
		}
		return err
	}
	if c.l.sync {
		start := time.Now()
		err := c.file.Sync()
		m.fsync.Observe(time.Since(start).Seconds())
		if err != nil {
			err = c.failure("sync", err)
			c.abandon()
			return err
		}
	}
	c.seq++
	c.bytes += int64(len(c.frame))
	m.records.Add(float64(b.records))
	m.writtenBytes.Add(float64(len(c.frame)))
	if cap(c.frame) > 2*s2.MaxEncodedLen(c.l.tune.batchBytes) {
		c.frame = nil
	}
	return nil
}

// encode frames b for the current segment, which it starts if need be.
func (c *committer) encode(b *batch) error {
	for {
		if c.file == nil {
			if err := c.create(); err != nil {
				return err
			}
		}
		c.frame = appendBlock(c.frame[:0], b.buf, blockHeader{salt: c.salt, seq: c.seq})
		if c.bytes == fileHeaderBytes || c.bytes+int64(len(c.frame)) <= c.l.tune.segmentBytes {
			return nil
		}
		c.cut() // and frame again, since a block repeats the salt of its segment
	}
}

func (c *committer) failure(what string, err error) error {
	return errs.New(errs.Unavailable, "write-ahead log in %s: %s segment %d: %w", c.l.dir, what, c.number, err)
}

// note counts and logs failures: once when they begin and once when they end, since a full disk
// fails every batch.
func (c *committer) note(err error) {
	switch {
	case err != nil:
		c.l.metrics.writesFailed.Inc()
		if !c.failing {
			c.l.log.Error("write-ahead log cannot be written, pushes are refused until it can", "segment", c.number, "err", err)
		}
	case c.failing:
		c.l.log.Info("write-ahead log is written again", "segment", c.number)
	}
	c.failing = err != nil
}

// writeAt writes all of b.
func writeAt(f file, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		return io.ErrShortWrite
	}
	return err
}

// create makes the file of the current segment durable under its name, with nothing but a header.
// After an error no file is left, or one that the next attempt empties.
func (c *committer) create() error {
	d, name := c.l.tune.disk, segmentName(c.number)
	f, err := d.Open(c.l.path(name), os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return err
	}
	h := fileHeader{kind: kindSegment, number: c.number, firstSeq: c.seq, salt: rand.Uint32()}
	if c.abandoned {
		h.flags |= flagAbandoned
	}
	err = writeAt(f, h.encode(), 0)
	if err == nil && c.l.sync {
		err = f.Sync()
	}
	if err == nil {
		err = d.SyncDir(c.l.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close(), d.Remove(c.l.path(name)))
	}
	c.file, c.bytes, c.salt, c.abandoned = f, fileHeaderBytes, h.salt, false
	return nil
}

// abandon gives up the current segment after its last acknowledged block. What the disk holds
// behind that block is unknown, so it is cut off if possible and disowned by the next segment.
func (c *committer) abandon() {
	err := errors.Join(c.file.Truncate(c.bytes), c.file.Close())
	c.l.log.Warn("write-ahead log goes on in a new segment", "abandoned", c.number, "offset", c.bytes, "err", err)
	c.file, c.abandoned = nil, true
	c.number++
}

// cut ends the current segment, if it holds a block, and returns the number of the current one.
func (c *committer) cut() int {
	if c.file == nil || c.bytes == fileHeaderBytes {
		return c.number
	}
	c.retire()
	c.file = nil
	c.number++
	c.l.mu.Lock()
	c.l.place(c)
	c.l.mu.Unlock()
	c.l.report()
	return c.number
}

// retire closes the current segment. Without Sync it is synced now, so that a power cut loses at
// most what is younger; that happens behind the back of the appenders, one segment at a time.
func (c *committer) retire() {
	f := c.file
	if c.l.sync {
		c.settled(c.number, f.Close())
		return
	}
	c.wait()
	c.behind = &retired{c.number, make(chan error, 1)}
	go func(done chan<- error) { done <- errors.Join(f.Sync(), f.Close()) }(c.behind.done)
}

// wait returns when no retired segment is being synced any more.
func (c *committer) wait() {
	if c.behind != nil {
		c.settled(c.behind.number, <-c.behind.done)
		c.behind = nil
	}
}

// settled reports a segment that could not be closed or, without Sync, synced.
func (c *committer) settled(number int, err error) {
	if err != nil {
		c.l.metrics.writesFailed.Inc()
		c.l.log.Error("write-ahead log did not close a segment, a power cut may lose it", "segment", number, "err", err)
	}
}

// stop ends the log. What is written has been synced before unless Sync is off.
func (c *committer) stop() error {
	c.wait()
	if c.file == nil {
		return nil
	}
	var err error
	if !c.l.sync {
		err = c.file.Sync()
	}
	if err = errors.Join(err, c.file.Close()); err != nil {
		return c.failure("close", err)
	}
	return nil
}
