package distributor

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const (
	// boundSlots is how many replicas of a series the table remembers bindings for. Replicas
	// beyond it get the definition with every push.
	boundSlots = 3

	// entryBytes is what one remembered series costs, with its share of the index.
	entryBytes = rowBytes + 19
	rowBytes   = int(unsafe.Sizeof(entry{}))
	slotBytes  = 8 // of the index

	pageBits    = 8
	pageEntries = 1 << pageBits

	// maxTableEntries keeps references below the index that ingesters accept; the last
	// transientEntries are for series that are not remembered.
	maxTableEntries  = 1 << 24
	transientEntries = 1 << 20

	// minSlots is the smallest index of a table.
	minSlots = 32

	// seenTicks is how coarsely it is recorded when a series was seen, in seconds: so a series
	// that is pushed often does not dirty its cache line every time.
	seenTicks = 60
)

// entry is what is remembered about one series. It has no pointers, so that the garbage collector
// does not look at millions of them. set, epoch, verdict and gen change under the write lock of
// the table, bound, meta and seen atomically under its read lock.
type entry struct {
	hash    remotewrite.Hash
	token   uint32             // place on the ring
	set     uint32             // replica set, in the topology of epoch
	epoch   uint32             // of the topology
	verdict uint32             // epoch of the limits under which the series was found valid
	bound   [boundSlots]uint32 // incarnation of each replica of the set that knows the reference
	meta    uint32             // hash of the metadata last sent
	seen    uint32             // seconds
	result  uint32             // hash of the labels it is stored under, if rules changed them
	pair    uint32             // number of the replica it comes from; 0: none
	gen     uint16
	flags   uint16
}

// Flags of an entry.
const (
	entryUsed      = 1 << iota
	entryTransient // not in the index; lives as long as one push
	entryDropped   // the rules of the tenant drop the series
	entryAnyName   // label names were not checked
	entryAnyCount  // nor was how many labels there are
)

// leftOut are the flags for checks that were left out at the wish of the sender.
const leftOut = uint16(entryAnyName | entryAnyCount)

// budget bounds the entries of all tables of a process.
type budget struct {
	limit  int64
	used   atomic.Int64
	memory *memory.Account // of the process; holds what the tables take, idle entries included
}

// full says whether no entry may be added for good.
func (b *budget) full() bool { return b.used.Load() >= b.limit || b.memory.Short() }

// table remembers the series of one tenant: an open-addressing index over numbered entries. The
// number of an entry is the index of the frame.Ref of its series.
type table struct {
	budget *budget
	gen    uint16 // of entries used for the first time

	mu      sync.RWMutex // guards all below; see entry for what changes under the read lock
	shape   uint32       // the newest shape that a push had
	slots   []uint64     // tag<<32 | number+1; 0: empty. The tag's high bits are the home position.
	shift   uint8
	indexed int // entries in slots
	pages   [][]entry
	next    uint32   // entries ever used
	free    []uint32 // of them, those free again
	hand    uint32   // of the clock that looks for idle entries
}

func newTable(b *budget, gen uint16) *table {
	t := &table{budget: b, gen: gen}
	t.resize(minSlots)
	return t
}

// found is a copy of what the table knew about one series of a push.
type found struct {
	number  uint32 // plus one; 0: nothing
	ref     frame.Ref
	token   uint32
	set     uint32
	epoch   uint32
	verdict uint32
	bound   [boundSlots]uint32
	meta    uint32
	result  uint32
	pair    uint32
	flags   uint16
}

func tagOf(h remotewrite.Hash) uint32 { return uint32(h.Hi >> 32) }

func (t *table) resize(n int) {
	old := t.slots
	t.slots = make([]uint64, n)
	t.budget.memory.Take(int64(n-len(old)) * slotBytes)
	t.shift = uint8(32 - bits.TrailingZeros(uint(n)))
	for _, s := range old {
		if s != 0 {
			t.place(s)
		}
	}
}

// place puts a slot into the first free position from its home on.
func (t *table) place(slot uint64) {
	mask := uint32(len(t.slots) - 1)
	i := uint32(slot>>32) >> t.shift
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot
}

// at returns entry n. The pointer is good until the lock is released.
func (t *table) at(n uint32) *entry { return &t.pages[n>>pageBits][n&(pageEntries-1)] }

// lookup fills out, which is as long as hashes, and notes that the series were seen. It probes for
// all series before it looks at the first entry, so that the processor waits for many cache
// misses at once.
func (t *table) lookup(hashes []remotewrite.Hash, out []found, tick uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	slots, shift := t.slots, t.shift
	mask := uint32(len(slots) - 1)
	for k := range hashes {
		tag := tagOf(hashes[k])
		i := tag >> shift
		s := slots[i&mask]
		for s != 0 && uint32(s>>32) != tag {
			i = (i + 1) & mask
			s = slots[i&mask]
		}
		out[k].number = uint32(s)
	}
	for k := range hashes {
		f := &out[k]
		if f.number == 0 {
			continue
		}
		e := t.at(f.number - 1)
		if e.hash != hashes[k] {
			if f.number = t.find(hashes[k]); f.number == 0 {
				continue
			}
			e = t.at(f.number - 1)
		}
		f.copy(e)
		if tick-atomic.LoadUint32(&e.seen) >= seenTicks {
			atomic.StoreUint32(&e.seen, tick)
		}
	}
}

// copy takes over what e says. The table must be locked.
func (f *found) copy(e *entry) {
	f.ref = frame.MakeRef(f.number-1, e.gen)
	f.token, f.set, f.epoch, f.verdict = e.token, e.set, e.epoch, e.verdict
	for i := range f.bound {
		f.bound[i] = atomic.LoadUint32(&e.bound[i])
	}
	f.meta = atomic.LoadUint32(&e.meta)
	f.result, f.pair, f.flags = e.result, e.pair, e.flags
}

// find returns the number plus one of the entry of h, 0 if there is none.
func (t *table) find(h remotewrite.Hash) uint32 {
	mask := uint32(len(t.slots) - 1)
	tag := tagOf(h)
	for i := tag >> t.shift; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return 0
		}
		if uint32(s>>32) == tag && t.at(uint32(s)-1).hash == h {
			return uint32(s)
		}
	}
}

// placement is what a push has found out about a series, to be remembered.
type placement struct {
	hash    remotewrite.Hash
	token   uint32
	set     uint32
	verdict uint32
	shape   uint32 // see tenantLimits
	result  uint32
	pair    uint32
	// There is no place for what is not stored.
	dropped bool // the rules of the tenant drop the series
	lost    bool // its replica is not elected; nothing else was found out about it
	leftOut uint16
}

// before says whether epoch a is older than b.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// remember stores w for a series and fills f. If the table is full the entry is transient: it is
// in nobody's way and must be handed to release once the push is done. False: not even that is
// possible. The table must be locked for writing.
//
// A reference stands for the same labels for ever: ingesters bind it, and what is under way may
// arrive late. So a series that is stored under other labels from now on gets a new one.
func (t *table) remember(w placement, topo *topology, tick uint32, f *found) (transient, ok bool) {
	if before(t.shape, w.shape) {
		t.shape = w.shape
	}
	number := t.find(w.hash)
	if number != 0 {
		switch e := t.at(number - 1); {
		case before(e.verdict, w.shape):
			t.drop(number - 1)
			number = 0
		case before(w.verdict, e.verdict) && before(w.shape, t.shape):
			// This push began under older rules than the entry may be of. It is stored as it began.
			return t.add(w, topo, tick, f, true)
		}
	}
	if number == 0 {
		return t.add(w, topo, tick, f, false)
	}
	f.number = number
	t.renew(t.at(number-1), w, topo, f)
	return false, true
}

// add makes an entry for w.
func (t *table) add(w placement, topo *topology, tick uint32, f *found, transient bool) (isTransient, ok bool) {
	n, transient, ok := t.allocate(tick, transient)
	if !ok {
		return false, false
	}
	e := t.at(n)
	*e = entry{hash: w.hash, verdict: w.verdict, result: w.result, pair: w.pair, seen: tick, gen: e.gen, flags: entryUsed}
	switch {
	case w.dropped:
		e.flags |= entryDropped
	case !w.lost:
		e.token, e.set, e.epoch = w.token, w.set, topo.epoch
		e.flags |= w.leftOut
	}
	if transient {
		e.flags |= entryTransient
	} else {
		t.index(n)
	}
	f.number = n + 1
	f.copy(e)
	return transient, true
}

// renew brings e up to date with w, which has the same shape, and fills f.
func (t *table) renew(e *entry, w placement, topo *topology, f *found) {
	newer := before(e.verdict, w.verdict)
	checked := !newer && e.epoch != 0
	if newer {
		e.verdict = w.verdict
	}
	switch {
	case w.lost && newer:
		// Under the newer limits its labels were not looked at, which will be done once it needs a
		// place again.
		e.epoch, e.bound, e.flags = 0, [boundSlots]uint32{}, e.flags&^entryDropped
	case w.lost:
	case w.dropped:
		e.flags = e.flags&^leftOut | entryDropped
	default:
		e.result = w.result
		e.leaveOut(w, checked)
	}
	if w.lost || w.dropped {
		f.copy(e)
		return
	}
	switch age := int32(topo.epoch - e.epoch); {
	case age < 0:
		// Another push knows a newer ring. This one keeps to its own, in which nothing is known
		// to be bound: to take the series for bound would rest its identity on what an ingester
		// may remember of a table of long ago.
		f.copy(e)
		f.set, f.epoch, f.bound = w.set, topo.epoch, [boundSlots]uint32{}
		return
	case age > 0 || e.set != w.set:
		e.bound = topo.carry(e, w.set)
		e.token, e.set, e.epoch = w.token, w.set, topo.epoch
	}
	f.copy(e)
}

// leaveOut notes which checks w left out. What one of several pushes has checked is checked; checked
// says whether one did before, under the same limits or newer ones.
func (e *entry) leaveOut(w placement, checked bool) {
	switch {
	case !checked:
		e.flags = e.flags&^leftOut | w.leftOut
	case e.verdict == w.verdict:
		e.flags &^= leftOut &^ w.leftOut
	}
}

func (t *table) index(n uint32) {
	if t.indexed++; t.indexed*4 > len(t.slots)*3 {
		t.resize(len(t.slots) * 2)
	}
	t.place(uint64(tagOf(t.at(n).hash))<<32 | uint64(n+1))
}

// allocate returns a free entry, transient if asked for. Past the budget it makes room from idle
// entries of this table, and if there are none the entry is transient, too.
func (t *table) allocate(tick uint32, wanted bool) (n uint32, transient, ok bool) {
	full := t.budget.full() || t.next >= maxTableEntries-transientEntries && len(t.free) == 0
	if full && !wanted {
		t.advance(tick, pressureIdleTicks, pressureScan)
		full = t.budget.full() || len(t.free) == 0
	}
	if transient = full || wanted; !transient {
		t.budget.used.Add(1)
	}
	if k := len(t.free); k > 0 {
		n = t.free[k-1]
		t.free = t.free[:k-1]
		return n, transient, true
	}
	if t.next >= maxTableEntries {
		return 0, false, false
	}
	n = t.next
	t.next++
	t.extend(n)
	t.at(n).gen = t.gen
	return n, transient, true
}

// extend makes entry n exist. The first page grows with the tenant, so that a small tenant costs
// little.
func (t *table) extend(n uint32) {
	p := int(n >> pageBits)
	if p == len(t.pages) {
		size := pageEntries
		if p == 0 {
			size = 16
		}
		t.pages = append(t.pages, make([]entry, size))
		t.budget.memory.Take(int64(size * rowBytes))
	}
	if i := int(n & (pageEntries - 1)); i >= len(t.pages[p]) {
		grown := make([]entry, min(pageEntries, 2*len(t.pages[p])))
		t.budget.memory.Take(int64((len(grown) - len(t.pages[p])) * rowBytes))
		copy(grown, t.pages[p])
		t.pages[p] = grown
	}
}

// release frees transient entries.
func (t *table) release(numbers []uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range numbers {
		t.drop(n)
	}
}

// drop frees entry n. Whatever names it from now on has another generation.
func (t *table) drop(n uint32) {
	e := t.at(n)
	if e.flags&entryTransient == 0 {
		t.unindex(n)
		t.budget.used.Add(-1)
	}
	*e = entry{gen: e.gen + 1}
	t.free = append(t.free, n)
}

// unindex removes entry n from the index and closes the gap.
func (t *table) unindex(n uint32) {
	mask := uint32(len(t.slots) - 1)
	i := tagOf(t.at(n).hash) >> t.shift
	for uint32(t.slots[i]) != n+1 {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; t.slots[j] != 0; j = (j + 1) & mask {
		home := uint32(t.slots[j]>>32) >> t.shift
		if (j-home)&mask >= (j-i)&mask { // the slot may stand as early as i
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = 0
	t.indexed--
}

// bind notes that replica slot of the series' set knows ref in incarnation inc.
func (t *table) bind(marks []mark, slotOf func(set uint32) int, inc, epoch uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, m := range marks {
		e := t.at(m.ref.Index())
		if e.gen != m.ref.Gen() || e.epoch != epoch || e.set != m.set || e.flags&entryTransient != 0 {
			continue
		}
		if s := slotOf(m.set); s >= 0 && s < boundSlots {
			atomic.StoreUint32(&e.bound[s], inc)
		}
	}
}

// mark names a series whose definition travels, and its replica set.
type mark struct {
	ref frame.Ref
	set uint32
}

// unbind notes that a replica does not know refs.
func (t *table) unbind(refs []frame.Ref, slotOf func(set uint32) int, epoch uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, ref := range refs {
		if ref.Index() >= t.next {
			continue
		}
		e := t.at(ref.Index())
		if e.gen != ref.Gen() || e.epoch != epoch || e.flags&entryUsed == 0 {
			continue
		}
		if s := slotOf(e.set); s >= 0 && s < boundSlots {
			atomic.StoreUint32(&e.bound[s], 0)
		}
	}
}

// sent notes which metadata of the series in list is stored.
func (t *table) sent(list []work, refs []frame.Ref) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for k := range list {
		ref := refs[list[k].series]
		if list[k].metaKey == 0 || ref == skipped {
			continue
		}
		if e := t.at(ref.Index()); e.gen == ref.Gen() {
			atomic.StoreUint32(&e.meta, list[k].metaKey)
		}
	}
}
