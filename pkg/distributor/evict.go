package distributor

import (
	"sync/atomic"
	"time"
)

const (
	// seriesIdle is how long a series may be silent before it is forgotten: longer than slow
	// scrapes and short outages, so that few series are defined anew.
	seriesIdle = 20 * time.Minute

	// pressureIdleTicks is how long, in seconds, a series must have been silent to be forgotten
	// when the memory is needed. No push that used it can still be under way by then.
	pressureIdleTicks = 3 * seenTicks

	// pressureScan is how many entries an insertion looks at to make room.
	pressureScan = 64

	// sweepPeriod is how long one pass of the clock over a table takes, in seconds.
	sweepPeriod = 60
)

// advance moves the clock over n entries and frees those not seen for idle seconds. The table
// must be locked for writing.
func (t *table) advance(tick, idle uint32, n int) (freed int) {
	for range min(n, int(t.next)) {
		if t.hand++; t.hand >= t.next {
			t.hand = 0
		}
		e := t.at(t.hand)
		if e.flags == entryUsed && int32(tick-atomic.LoadUint32(&e.seen)) >= int32(idle) {
			t.drop(t.hand)
			freed++
		}
	}
	return freed
}

// sweep does this second's part of the clock's round. When the process is short of entries it
// forgets series sooner, the shorter the more, so that the longest silent ones of all tenants go
// first.
func (t *table) sweep(tick uint32) (freed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	part := int(t.next)*int(tick%sweepPeriod+1)/sweepPeriod - int(t.next)*int(tick%sweepPeriod)/sweepPeriod
	return t.advance(tick, t.budget.idleTicks(), part)
}

// idleTicks is how many seconds a series may be silent now.
func (b *budget) idleTicks() uint32 {
	const long = uint32(seriesIdle / time.Second)
	used, limit := b.used.Load(), max(b.limit, 1)
	left := (limit - used) * 10 / limit // tenths
	switch {
	case b.memory.Short():
		return pressureIdleTicks
	case left >= 2:
		return long
	case left >= 1:
		return long / 2
	case used < limit:
		return long / 4
	}
	return pressureIdleTicks
}

// give returns the memory of t, which nobody uses any more, to the process.
func (b *budget) give(t *table) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	bytes := int64(len(t.slots)) * slotBytes
	for _, p := range t.pages {
		bytes += int64(len(p) * rowBytes)
	}
	b.memory.Release(bytes)
}

// size returns the series remembered and the bytes of the table.
func (t *table) size() (series, bytes int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, p := range t.pages {
		bytes += len(p) * rowBytes
	}
	return t.indexed, bytes + len(t.slots)*slotBytes + cap(t.free)*4 + cap(t.pages)*24
}
