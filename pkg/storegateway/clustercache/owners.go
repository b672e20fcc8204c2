package clustercache

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"
)

// ownersPeriod is how often the ring is looked at for changes.
const ownersPeriod = time.Second

// owners tells who owns a key: of the healthy members in this process's zone, or of all if it has no zone,
// the one with the first token after the key's hash.
type owners struct {
	ring ring.ReadRing
	zone string
	now  func() time.Time

	checked atomic.Int64 // when, in nanoseconds since the epoch
	current atomic.Pointer[table]
	looking sync.Mutex // held while looking
}

// table is what follows from one state of the ring, sorted by token.
type table struct {
	members []ring.InstanceDesc // by address
	tokens  []token
}

type token struct {
	token uint32
	addr  string
}

func newOwners(r ring.ReadRing, zone string) *owners {
	return &owners{ring: r, zone: zone, now: time.Now}
}

// of returns the address of the owner; empty if there is none.
func (o *owners) of(key string) string {
	t := o.look().tokens
	if len(t) == 0 {
		return ""
	}
	hash := uint32(xxhash.Sum64String(key))
	at, _ := slices.BinarySearchFunc(t, hash, func(t token, h uint32) int {
		if t.token <= h { // a token owns the hashes before it
			return -1
		}
		return 1
	})
	return t[at%len(t)].addr
}

// look returns what follows from the ring of now. One caller looks, others go on with what is known.
func (o *owners) look() *table {
	now := o.now().UnixNano()
	old := o.current.Load()
	if d := now - o.checked.Load(); old != nil && d >= 0 && d < int64(ownersPeriod) {
		return old
	}
	if old == nil {
		o.looking.Lock()
	} else if !o.looking.TryLock() {
		return old
	}
	defer o.looking.Unlock()
	members := o.members()
	if old = o.current.Load(); old == nil || !slices.EqualFunc(old.members, members, same) {
		old = tableOf(members)
		o.current.Store(old)
	}
	o.checked.Store(now)
	return old
}

// members are those that may own keys.
func (o *owners) members() []ring.InstanceDesc {
	set, err := o.ring.GetAllHealthy(ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil))
	if err != nil {
		return nil // nobody is in the ring
	}
	in := slices.DeleteFunc(set.Instances, func(d ring.InstanceDesc) bool { return o.zone != "" && d.Zone != o.zone })
	slices.SortFunc(in, func(a, b ring.InstanceDesc) int { return cmp.Compare(a.Addr, b.Addr) })
	return in
}

// same says whether a member owns what it did.
func same(a, b ring.InstanceDesc) bool { return a.Addr == b.Addr && slices.Equal(a.Tokens, b.Tokens) }

func tableOf(members []ring.InstanceDesc) *table {
	t := &table{members: members}
	for _, m := range members {
		for _, n := range m.Tokens {
			t.tokens = append(t.tokens, token{n, m.Addr})
		}
	}
	slices.SortFunc(t.tokens, func(a, b token) int {
		return cmp.Or(cmp.Compare(a.token, b.token), cmp.Compare(a.addr, b.addr))
	})
	return t
}
