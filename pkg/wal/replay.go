package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// mostDamages bounds the damages that ReplayStats lists; all are counted.
const mostDamages = 100

// Damage is one place of the log that could not be replayed.
type Damage struct {
	File          string
	Segment       int
	Offset, Bytes int64
	// Blocks is how many blocks, each of one or more appends, are lost for certain; -1 if it
	// cannot be known.
	Blocks int64
	Cause  string
}

// ReplayStats says what a replay found.
type ReplayStats struct {
	Segments        int
	MissingSegments int
	Blocks, Records int64
	Bytes           int64 // of records
	Damages         []Damage
	Corruptions     int64 // all damages, also those beyond the first 100
	LostBytes       int64 // in damaged places
	TornBytes       int64 // cut off the end of the last segment
	Disowned        int64 // blocks passed over because their appends had failed
	Duration        time.Duration
}

// Replay calls fn for every record of the checkpoint and of the segments after it, in the order of
// their appends, and makes the log ready for appends. For a record of the checkpoint, segment is the
// last one that the checkpoint replaces. record is valid only during fn. Damaged places are passed
// over, logged, counted and returned. An error of fn or ctx ends the replay; it may then be tried
// again. Errors: those of fn, the cause of ctx, Unavailable (a file cannot be opened, or the log
// is closed), Conflict (replayed already).
func (l *Log) Replay(ctx context.Context, fn func(segment int, record []byte) error) (ReplayStats, error) {
	if err := l.acquire(ctx); err != nil {
		return ReplayStats{}, fmt.Errorf("replay write-ahead log: %w", err)
	}
	defer l.release()
	l.mu.Lock()
	started := l.started
	r := replayer{l: l, fn: fn, segments: slices.Sorted(maps.Keys(l.segments)), sizes: maps.Clone(l.segments), check: l.check, next: l.number}
	l.mu.Unlock()
	if started {
		return ReplayStats{}, errs.New(errs.Conflict, "write-ahead log in %s has been replayed already", l.dir)
	}
	begun := time.Now()
	err := r.run(ctx)
	r.stats.Duration = time.Since(begun)
	l.metrics.replaySeconds.Set(r.stats.Duration.Seconds())
	if err != nil {
		return r.stats, fmt.Errorf("replay write-ahead log in %s: %w", l.dir, err)
	}
	l.log.Info("write-ahead log replayed", "segments", r.stats.Segments, "records", r.stats.Records,
		"bytes", r.stats.Bytes, "corruptions", r.stats.Corruptions, "duration", r.stats.Duration)
	l.sweep()
	l.start(&r)
	return r.stats, nil
}

// start makes the log ready for appends behind what r has read.
func (l *Log) start(r *replayer) {
	c := &committer{l: l, seq: r.expected, number: r.next, abandoned: r.carry}
	l.mu.Lock()
	l.number, l.started = c.number, true
	l.mu.Unlock()
	l.report()
	go c.run()
}

// acquire takes the right to run Replay or Checkpoint, of which one runs at a time.
func (l *Log) acquire(ctx context.Context) error {
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if l.isClosed() {
		l.release()
		return l.errClosed
	}
	return nil
}

func (l *Log) release() { <-l.busy }

// replayer follows the sequence numbers through the files, so that it knows what is missing.
type replayer struct {
	l        *Log
	fn       func(segment int, record []byte) error
	segments []int
	sizes    map[int]int64 // bytes by segment
	check    checkpoint
	stats    ReplayStats

	expected uint64 // sequence number of the next block
	known    bool   // expected is known
	next     int    // number of the segment to write next
	carry    bool   // its header says that the one before was abandoned
}

// source is one file of the log while it is replayed.
type source struct {
	name   string
	number int
	bytes  int64
	check  bool // a checkpoint
	last   bool // nothing comes after it
	header fileHeader
	limit  uint64 // blocks from this sequence number on are disowned
}

func (r *replayer) run(ctx context.Context) error {
	if r.check.number >= 0 {
		src := source{name: checkpointName(r.check.number), number: r.check.number, bytes: r.check.bytes, check: true}
		if err := r.file(ctx, &src); err != nil {
			return err
		}
	}
	r.expected, r.known = 0, false
	limits, before := r.limits(), r.check.number
	for i, n := range r.segments {
		r.stats.Segments++
		src := source{name: segmentName(n), number: n, bytes: r.sizes[n], last: i == len(r.segments)-1, limit: limits[i]}
		if err := r.segment(ctx, &src, n-before-1); err != nil {
			return err
		}
		before = n
	}
	return nil
}

// limits returns for each segment the sequence number from which its blocks are disowned by the
// segment after it, and by those after that if they were abandoned in turn.
func (r *replayer) limits() []uint64 {
	out := make([]uint64, len(r.segments))
	limit := ^uint64(0)
	for i := len(r.segments) - 1; i >= 0; i-- {
		out[i] = limit
		h, err := r.l.peek(segmentName(r.segments[i]))
		if err != nil || h.flags&flagAbandoned == 0 {
			limit = ^uint64(0)
			continue
		}
		limit = min(limit, h.firstSeq)
	}
	return out
}

// peek reads the header of a file.
func (l *Log) peek(name string) (fileHeader, error) {
	f, err := l.tune.disk.Open(l.path(name), os.O_RDONLY)
	if err != nil {
		return fileHeader{}, err
	}
	b := make([]byte, fileHeaderBytes)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	h, parseErr := parseFileHeader(b[:n])
	return h, errors.Join(err, f.Close(), parseErr)
}

// segment replays one segment; missing is how many are missing before it.
func (r *replayer) segment(ctx context.Context, src *source, missing int) error {
	if missing > 0 {
		h, err := r.l.peek(src.name)
		if err != nil || !r.known || h.firstSeq > r.expected {
			r.stats.MissingSegments += missing
			d := Damage{File: segmentName(src.number - missing), Segment: src.number - missing, Blocks: -1, Cause: fmt.Sprintf("%d segments are missing", missing)}
			if err == nil && r.known {
				d.Blocks = int64(h.firstSeq - r.expected)
				r.expected = h.firstSeq
			} else {
				r.known = false
			}
			r.damage(d)
		}
	}
	return r.file(ctx, src)
}

// file replays one file.
func (r *replayer) file(ctx context.Context, src *source) error {
	ctx, cancel := context.WithCancel(ctx)
	ahead := r.l.readAhead(ctx, src.name, src.bytes)
	defer ahead.drain()
	defer cancel()
	p := passage{replayer: r, src: src}
	for it := range ahead.items {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if it.err != nil {
			return errs.New(errs.Unavailable, "read %s: %w", src.name, it.err)
		}
		if it.opened {
			p.open(it)
			continue
		}
		if it.gap != nil {
			p.pending = it.gap
			p.unreadable = p.unreadable || it.unreadable
		}
		if it.raw == nil {
			continue
		}
		err := p.block(it)
		ahead.recycle(it.raw)
		if err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	p.end()
	return nil
}

// damage reports one damaged place.
func (r *replayer) damage(d Damage) {
	r.stats.Corruptions++
	r.stats.LostBytes += d.Bytes
	if len(r.stats.Damages) < mostDamages {
		r.stats.Damages = append(r.stats.Damages, d)
	}
	r.l.metrics.corruptions.Inc()
	r.l.metrics.lostBytes.Add(float64(d.Bytes))
	r.l.log.Error("write-ahead log is damaged, replay goes on behind it", "file", d.File, "segment", d.Segment,
		"offset", d.Offset, "bytes", d.Bytes, "blocks_lost", d.Blocks, "cause", d.Cause)
}

// passage is the way through one file.
type passage struct {
	*replayer
	src        *source
	pending    *gap // damage before the next block
	blocks     int64
	records    uint64 // of a checkpoint
	good       int64  // end of the last good block
	headerErr  error
	unreadable bool
	complete   bool // the last block of a checkpoint has been seen
}

// open takes the header of the file.
func (p *passage) open(it item) {
	if p.headerErr = it.headerErr; p.headerErr != nil {
		return
	}
	p.src.header = it.header
	p.good = fileHeaderBytes
	if p.src.check {
		p.expected, p.known = 0, true
		return
	}
	if p.known && it.header.firstSeq > p.expected {
		p.damage(Damage{File: p.src.name, Segment: p.src.number, Blocks: int64(it.header.firstSeq - p.expected),
			Cause: "blocks are missing at the end of the segment before"})
	}
	p.expected, p.known = it.header.firstSeq, true
}

// block delivers the records of one block.
func (p *passage) block(it item) error {
	h := it.block
	if h.seq >= p.src.limit && !p.src.check {
		p.stats.Disowned++
		p.pending = nil
		return nil
	}
	p.account(h, it.off)
	p.blocks++
	p.stats.Blocks++
	p.good = it.off + blockHeaderBytes + int64(h.stored)
	if h.codec == codecEnd {
		p.finish(it)
		return nil
	}
	for raw := it.raw; len(raw) > 0; {
		rec, rest, err := cutRecord(raw)
		if err != nil {
			p.damage(Damage{p.src.name, p.src.number, it.off, int64(h.stored), -1, err.Error()})
			return nil
		}
		p.stats.Records++
		p.stats.Bytes += int64(len(rec))
		p.records++
		if err := p.fn(p.src.number, rec); err != nil {
			return err
		}
		raw = rest
	}
	return nil
}

// account compares the sequence number of a block with what was expected, and reports the damage
// before it.
func (p *passage) account(h blockHeader, off int64) {
	lost := int64(-1)
	if p.known {
		lost = max(int64(h.seq)-int64(p.expected), 0)
	}
	switch {
	case p.pending != nil:
		p.damage(Damage{p.src.name, p.src.number, p.pending.off, p.pending.bytes, lost, p.pending.cause.Error()})
	case p.blocks == 0 && p.headerErr != nil:
		p.damage(Damage{p.src.name, p.src.number, 0, fileHeaderBytes, max(lost, 0), p.headerErr.Error()})
	case lost > 0:
		p.damage(Damage{p.src.name, p.src.number, off, 0, lost, "blocks are missing"})
	}
	p.pending = nil
	p.expected, p.known = h.seq+1, true
}

// finish takes the last block of a checkpoint, which counts its records.
func (p *passage) finish(it item) {
	p.complete = true
	cause := "end of the checkpoint is malformed"
	if len(it.raw) == 8 {
		want := binary.LittleEndian.Uint64(it.raw)
		if want == p.records || p.stats.Corruptions > 0 {
			return
		}
		cause = fmt.Sprintf("checkpoint was written with %d records, %d were read", want, p.records)
	}
	p.damage(Damage{p.src.name, p.src.number, it.off, 0, -1, cause})
}

// end judges what is left behind the last block.
func (p *passage) end() {
	if p.headerErr != nil && p.blocks == 0 && p.pending == nil {
		p.pending = &gap{0, p.src.bytes, p.headerErr}
	}
	switch {
	case p.src.check:
		p.endCheckpoint()
	case p.src.last && !p.unreadable:
		p.endLast()
	case p.src.last:
		p.next = p.src.number + 1
		p.lost(-1)
	case p.pending != nil:
		p.endSegment()
	}
}

// endCheckpoint reports a checkpoint that does not end as its writer ended it.
func (p *passage) endCheckpoint() {
	switch {
	case p.pending != nil:
		p.lost(-1)
	case !p.complete:
		p.damage(Damage{p.src.name, p.src.number, p.good, 0, -1, "checkpoint has no end"})
	}
}

// endSegment judges the rest of a segment that is not the last. Nothing is lost there if the next
// segment goes on with the block that follows the last good one: its writer gave up this one.
func (p *passage) endSegment() {
	if i, ok := slices.BinarySearch(p.segments, p.src.number); ok && i+1 < len(p.segments) && p.known {
		if h, err := p.l.peek(segmentName(p.segments[i+1])); err == nil {
			if h.firstSeq <= p.expected {
				p.l.log.Info("end of an abandoned segment passed over, nothing in it was acknowledged",
					"segment", p.src.number, "offset", p.pending.off, "bytes", p.pending.bytes)
				return
			}
			p.lost(int64(h.firstSeq - p.expected))
			p.expected = h.firstSeq
			return
		}
	}
	p.lost(-1)
}

// lost reports the damage at the end of the file, if there is some.
func (p *passage) lost(blocks int64) {
	if p.pending != nil {
		p.damage(Damage{p.src.name, p.src.number, p.pending.off, p.pending.bytes, blocks, p.pending.cause.Error()})
	}
}

// endLast cuts a torn tail off the last segment, and decides where the log goes on: in the same
// file if it holds nothing.
func (p *passage) endLast() {
	if p.blocks == 0 {
		p.next = p.src.number
		p.carry = p.src.header.flags&flagAbandoned != 0
	} else {
		p.next = p.src.number + 1
	}
	if p.pending == nil || p.src.bytes == 0 {
		return
	}
	p.stats.TornBytes += p.src.bytes - p.good
	p.l.metrics.tornTails.Inc()
	err := p.truncate()
	p.l.log.Warn("unfinished end of the write-ahead log cut off", "file", p.src.name, "segment", p.src.number,
		"offset", p.good, "bytes", p.src.bytes-p.good, "cause", p.pending.cause, "err", err)
}

// truncate cuts the file behind its last good block. If that fails, the next replay sees the same.
func (p *passage) truncate() error {
	f, err := p.l.tune.disk.Open(p.l.path(p.src.name), os.O_RDWR)
	if err != nil {
		return err
	}
	if err = f.Truncate(p.good); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		p.l.mu.Lock()
		p.l.segments[p.src.number] = p.good
		p.l.mu.Unlock()
	}
	return err
}

// checkpointEnd is the payload of the last block of a checkpoint.
func checkpointEnd(records uint64) []byte { return binary.LittleEndian.AppendUint64(nil, records) }
