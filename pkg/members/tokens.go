package members

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/ring"
)

const (
	// ringSize is the number of places of a ring.
	ringSize = math.MaxUint32 + 1
	// waitForTurn is how long a member that wants to join is waited for when it says nothing: one
	// that waits itself says nothing, and a turn takes about a second.
	waitForTurn = 30 * time.Second
)

// balancedTokens gives a new member an even share of the ring, taken evenly from the others: with n
// of them, one part in n+1. Members that leave give back what they took. Random tokens, in
// comparison, leave the fullest of ten members with a sixth more than its share.
//
// Members of one zone join one after the other, because two that chose at the same time would take
// the same share.
type balancedTokens struct {
	id, zone string
	zones    bool // replicas go to different zones, so each zone is a ring of its own
	now      func() time.Time

	mu    sync.Mutex // guards what follows
	looks int
	seen  map[string]ring.InstanceDesc
}

func newBalancedTokens(id, zone string, zones bool) *balancedTokens {
	return &balancedTokens{id: id, zone: zone, zones: zones, now: time.Now}
}

// CanJoinEnabled implements ring.TokenGenerator.
func (b *balancedTokens) CanJoinEnabled() bool { return true }

// CanJoin implements ring.TokenGenerator. It is asked once a second until it returns nil. The first
// answer is no, so that neighbours that start at the same time have heard of each other.
func (b *balancedTokens) CanJoin(instances map[string]ring.InstanceDesc) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = instances
	if b.looks++; b.looks == 1 {
		return fmt.Errorf("neighbours may join at the same time")
	}
	mine := instances[b.id]
	for id, d := range instances {
		if id == b.id || !b.in(d) || len(d.Tokens) > 0 || d.State != ring.PENDING || b.now().Sub(time.Unix(d.Timestamp, 0)) > waitForTurn {
			continue
		}
		if d.RegisteredTimestamp < mine.RegisteredTimestamp || d.RegisteredTimestamp == mine.RegisteredTimestamp && id < b.id {
			return fmt.Errorf("the instance %q joins first", id)
		}
	}
	return nil
}

// in says whether d shares the ring with this member.
func (b *balancedTokens) in(d ring.InstanceDesc) bool { return !b.zones || d.Zone == b.zone }

// GenerateTokens implements ring.TokenGenerator.
func (b *balancedTokens) GenerateTokens(n int, taken []uint32) ring.Tokens {
	if n <= 0 {
		return ring.Tokens{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	used := make(map[uint32]bool, len(taken)+n)
	for _, t := range taken {
		used[t] = true
	}
	owners := b.owners()
	var out ring.Tokens
	if len(owners) == 0 {
		out = evenly(n, used)
	} else {
		out = share(n, owners, used)
	}
	slices.Sort(out)
	return out
}

// gap is the places before one token that it owns.
type gap struct {
	from uint32 // the token before, which owns itself
	size int64
}

// owner is a member with its gaps.
type owner struct {
	total int64
	gaps  []gap
}

// owners are the members that take writes in this member's ring.
func (b *balancedTokens) owners() []owner {
	type place struct {
		token uint32
		id    string
	}
	var places []place
	for id, d := range b.seen {
		if id == b.id || !b.in(d) || d.ReadOnly {
			continue
		}
		for _, t := range d.Tokens {
			places = append(places, place{t, id})
		}
	}
	slices.SortFunc(places, func(a, b place) int { return int(int64(a.token) - int64(b.token)) })
	byID := map[string]*owner{}
	for i, p := range places {
		from := places[(i+len(places)-1)%len(places)].token
		size := int64(p.token - from) // wraps around
		if size == 0 && len(places) == 1 {
			size = ringSize
		}
		o := byID[p.id]
		if o == nil {
			o = &owner{}
			byID[p.id] = o
		}
		o.total += size
		o.gaps = append(o.gaps, gap{from, size})
	}
	out := make([]owner, 0, len(byID))
	for _, o := range byID {
		out = append(out, *o)
	}
	return out
}

// evenly places n tokens at equal distances from a random start.
func evenly(n int, used map[uint32]bool) ring.Tokens {
	out := make(ring.Tokens, 0, n)
	start := rand.Uint32()
	for i := range n {
		out = append(out, free(start+uint32(int64(i)*(ringSize/int64(n))), used))
	}
	return out
}

// share takes an even part of the ring, each piece from whoever owns most then, out of its largest
// gap.
func share(n int, owners []owner, used map[uint32]bool) ring.Tokens {
	out := make(ring.Tokens, 0, n)
	rest := int64(ringSize) / int64(len(owners)+1)
	for i := range n {
		o := &owners[0]
		for k := range owners {
			if owners[k].total > o.total {
				o = &owners[k]
			}
		}
		g := &o.gaps[0]
		for k := range o.gaps {
			if o.gaps[k].size > g.size {
				g = &o.gaps[k]
			}
		}
		piece := max(1, min(rest/int64(n-i), g.size-1))
		token := free(g.from+uint32(piece), used)
		out = append(out, token)
		piece = int64(token - g.from)
		g.from, g.size = token, g.size-piece
		o.total -= piece
		rest -= piece
	}
	return out
}

// free returns the first unused token from t on, and uses it.
func free(t uint32, used map[uint32]bool) uint32 {
	for used[t] {
		t++
	}
	used[t] = true
	return t
}
