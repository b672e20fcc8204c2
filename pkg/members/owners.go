package members

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// ownersSettle is how long a member waits before it uses what it came to own: until then the one that
	// owned it may not know. News of the ring reach all in a second or so.
	ownersSettle = 5 * time.Second
	// ownersMemory is how long a member that left is remembered. Nothing that is owned is kept for as long
	// without being used.
	ownersMemory = 24 * time.Hour
	// maxOwners bounds what is believed of members that are not in the ring.
	maxOwners = 4096
)

// Owners divides things, known by a hash, among the members of a ring, so that each has one owner whose
// memory it lives in. A member that comes or goes moves only what it owns or owned.
//
// No two members see the same ring at the same moment. So who comes to own a thing waits until the others
// know, and each thing has an epoch: when it may last have had another owner. Who has it in memory from a
// lower epoch must begin anew, as it may have lived elsewhere meanwhile. Members tell each other of the
// changes that they saw, since one that was taken for dead by others does not see that itself.
type Owners struct {
	self  string
	stale time.Duration // a ring looked at longer ago is not believed

	view atomic.Pointer[ownersView]

	mu      sync.Mutex        // guards all below
	alive   map[string]string // addresses by ID
	changed map[string]ownerChange
	looked  time.Time
}

// ownerChange is when a member came or went.
type ownerChange struct {
	epoch int64     // nanoseconds, by the clock of whoever saw it; never falls
	seen  time.Time // here; zero: only others did
}

// ownersView is what follows from the ring at one moment. It does not change.
type ownersView struct {
	members []ownersMember
	looked  time.Time
}

type ownersMember struct {
	id, addr string // no addr: it is gone
	hash     uint64
	self     bool
	ownerChange
}

// Owned says who owns a thing.
type Owned struct {
	Addr  string // of the owner; empty: nobody may use it for now
	Self  bool   // the owner is this process
	Epoch int64
}

// NewOwners returns what the member self needs. A ring that was looked at longer than stale ago is not
// believed: the others may take this member for dead.
func NewOwners(self string, stale time.Duration) *Owners {
	return &Owners{self: self, stale: stale, changed: map[string]ownerChange{}}
}

// Look takes in who is alive: addresses by ID.
func (o *Owners) Look(alive map[string]string, now time.Time) {
	now = now.Round(0) // time in which the machine slept counts
	o.mu.Lock()
	defer o.mu.Unlock()
	changed := func(id string) {
		o.changed[id] = ownerChange{max(now.UnixNano(), o.changed[id].epoch+1), now}
	}
	if o.looked.IsZero() || now.Sub(o.looked) > o.stale {
		changed(o.self)
	}
	if !o.looked.IsZero() {
		for id := range alive {
			if _, was := o.alive[id]; !was {
				changed(id)
			}
		}
		for id := range o.alive {
			if _, is := alive[id]; !is {
				changed(id)
			}
		}
	}
	o.alive, o.looked = maps.Clone(alive), now
	maps.DeleteFunc(o.changed, func(id string, c ownerChange) bool {
		_, is := o.alive[id]
		return !is && now.UnixNano()-c.epoch > int64(ownersMemory)
	})
	o.publish()
}

// publish makes the view. It needs mu.
func (o *Owners) publish() {
	v := &ownersView{looked: o.looked}
	add := func(id string) {
		v.members = append(v.members, ownersMember{id: id, addr: o.alive[id], hash: xxhash.Sum64String(id), self: id == o.self, ownerChange: o.changed[id]})
	}
	for id := range o.alive {
		add(id)
	}
	for id := range o.changed {
		if _, is := o.alive[id]; !is {
			add(id)
		}
	}
	slices.SortFunc(v.members, func(a, b ownersMember) int { return cmp.Compare(a.id, b.id) })
	o.view.Store(v)
}

// Changes are the epochs of members that came or went, by ID, for the others to Learn.
func (o *Owners) Changes() map[string]int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[string]int64, len(o.changed))
	for id, c := range o.changed {
		out[id] = c.epoch
	}
	return out
}

// Learn takes in what another member saw.
func (o *Owners) Learn(changes map[string]int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	news := false
	for id, epoch := range changes {
		c, known := o.changed[id]
		if _, member := o.alive[id]; epoch > c.epoch && (known || member || len(o.changed) < maxOwners) {
			c.epoch, news = epoch, true
			o.changed[id] = c
		}
	}
	if news && !o.looked.IsZero() {
		o.publish()
	}
}

// Division says who owns what at one moment.
type Division struct {
	view *ownersView
	now  time.Time
}

// Division returns who owns what now. Errors: Unavailable.
func (o *Owners) Division(now time.Time) (Division, error) {
	now = now.Round(0)
	v := o.view.Load()
	if v == nil || now.Sub(v.looked) > o.stale {
		return Division{}, errs.New(errs.Unavailable, "this process has not looked for long who else there is")
	}
	return Division{v, now}, nil
}

// Of returns who owns the thing with the hash.
func (d Division) Of(hash uint64) (out Owned) {
	best, top := -1, uint64(0)
	for i := range d.view.members {
		m := &d.view.members[i]
		if s := score(m.hash, hash); m.addr != "" && (best < 0 || s > top) {
			best, top = i, s
		}
	}
	if best < 0 {
		return out
	}
	out.Self = d.view.members[best].self
	settled := true
	for i := range d.view.members { // those who would own it, were they here, owned it when they were
		m := &d.view.members[i]
		if score(m.hash, hash) >= top {
			out.Epoch = max(out.Epoch, m.epoch)
			settled = settled && d.now.Sub(m.seen) >= ownersSettle
		}
	}
	if !out.Self || settled {
		out.Addr = d.view.members[best].addr
	}
	return out
}

// score is how much a member is meant for a thing: of all members the one with the highest score has it.
func score(member, thing uint64) uint64 {
	x := member ^ thing*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
