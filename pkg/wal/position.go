package wal

import (
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Position is the end of a log at some moment. Only the log itself can tell whether it still ends
// there.
type Position struct {
	Segment  int
	Bytes    int64  // of the segment
	Salt     uint32 // of the segment, by which another log's is told apart
	Sequence uint64 // of the block to come
}

// End returns where the log ends, with all that was appended before on disk. Errors: Unavailable.
func (l *Log) End() (Position, error) {
	l.mu.Lock()
	if err := l.unusable(); err != nil {
		l.mu.Unlock()
		return Position{}, err
	}
	b := &batch{end: new(Position)}
	l.enqueue(b)
	l.mu.Unlock()
	if _, err := l.await(b.out, "find the end of"); err != nil {
		return Position{}, err
	}
	return *b.end, nil
}

// end returns the position of the committer. A segment that has no file yet gets one, so that the
// position can be recognised.
func (c *committer) end() (Position, error) {
	c.wait()
	if c.file == nil {
		if err := c.create(); err != nil {
			return Position{}, c.failure("create", err)
		}
		c.l.mu.Lock()
		c.l.place(c)
		c.l.mu.Unlock()
	}
	if !c.l.sync {
		if err := c.file.Sync(); err != nil {
			return Position{}, c.failure("sync", err)
		}
	}
	return Position{Segment: c.number, Bytes: c.bytes, Salt: c.salt, Sequence: c.seq}, nil
}

// EndsAt says whether a log that was not replayed yet ends at p.
func (l *Log) EndsAt(p Position) bool {
	l.mu.Lock()
	number, bytes, known := l.number, l.segments[p.Segment], p.Segment > l.check.number
	l.mu.Unlock()
	if !known || p.Segment != number || p.Bytes != bytes || p.Bytes < fileHeaderBytes {
		return false
	}
	h, err := l.peek(segmentName(p.Segment))
	return err == nil && h.number == p.Segment && h.salt == p.Salt
}

// Resume makes the log ready for appends, as Replay does, without reading it: the caller has what
// lies before p from elsewhere. Errors: Conflict (the log does not end at p, or is in use already),
// Unavailable.
func (l *Log) Resume(p Position) error {
	if !l.EndsAt(p) {
		return errs.New(errs.Conflict, "write-ahead log in %s does not end in segment %d at %d", l.dir, p.Segment, p.Bytes)
	}
	h, err := l.peek(segmentName(p.Segment))
	if err != nil {
		return errs.New(errs.Unavailable, "read %s: %w", segmentName(p.Segment), err)
	}
	l.mu.Lock()
	err = l.unusable()
	l.mu.Unlock()
	if err == nil {
		return errs.New(errs.Conflict, "write-ahead log in %s is in use already", l.dir)
	}
	r := &replayer{l: l, expected: p.Sequence, next: p.Segment + 1}
	if p.Bytes == fileHeaderBytes { // the segment holds nothing and is written anew
		r.next, r.carry = p.Segment, h.flags&flagAbandoned != 0
	}
	l.sweep()
	l.start(r)
	return nil
}
