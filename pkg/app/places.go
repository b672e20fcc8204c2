package app

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// placesPeriod is how often the ring is looked at for changes.
const placesPeriod = time.Second

// places tells the ingester of this process where it stands among the ingesters of each tenant. It
// goes by who is registered, healthy or not: a dead ingester keeps its series until it leaves.
type places struct {
	ring  ring.ReadRing
	me    string
	zones bool
	size  func(tenant.ID) int // of the tenant's shard; 0: all

	checked atomic.Int64 // when, in nanoseconds since the epoch
	current atomic.Pointer[placesNow]

	looking sync.Mutex // held while looking; guards in
	in      registered
}

// placesNow is what follows from one state of the ring.
type placesNow struct {
	members map[string]ring.InstanceDesc
	all     *ingester.Place
	shards  sync.Map // of tenant.ID to shardPlace
}

type shardPlace struct {
	size  int
	place *ingester.Place
}

func newPlaces(r *ring.Ring, me string, zones bool, size func(tenant.ID) int) *places {
	shards := ring.ReadRing(r)
	if zones {
		shards = members.Steady(r)
	}
	return &places{ring: shards, me: me, zones: zones, size: size, in: newRegistered(r)}
}

// of returns the place among the ingesters of a tenant. It is the same while nothing changes.
func (p *places) of(id tenant.ID) *ingester.Place {
	now := p.look()
	size := p.size(id)
	if size <= 0 || !p.zones && size >= len(now.members) { // of a zone a shard may have a part whatever its size
		return now.all
	}
	if s, ok := now.shards.Load(id); ok && s.(shardPlace).size == size {
		return s.(shardPlace).place
	}
	s := shardPlace{size, p.place(now.members, p.ring.ShuffleShard(string(id), size))}
	now.shards.Store(id, s)
	return s.place
}

// look returns what follows from the ring of now. One caller looks, others go on with what is
// known.
func (p *places) look() *placesNow {
	now := time.Now().UnixNano()
	old := p.current.Load()
	if d := now - p.checked.Load(); old != nil && d >= 0 && d < int64(placesPeriod) {
		return old
	}
	if old == nil {
		p.looking.Lock()
	} else if !p.looking.TryLock() {
		return old
	}
	defer p.looking.Unlock()
	if old = p.current.Load(); p.in.learn() || old == nil {
		members := maps.Clone(p.in.known)
		old = &placesNow{members: members, all: p.place(members, p.ring.ShuffleShard("", 0))}
		p.current.Store(old)
	}
	p.checked.Store(now)
	return old
}

// place computes the place among the members that shard has.
func (p *places) place(members map[string]ring.InstanceDesc, shard ring.ReadRing) *ingester.Place {
	var in []ring.InstanceDesc
	zones, peers, here := map[string]bool{}, 0, false
	for id, d := range members {
		if len(d.Tokens) == 0 || !shard.HasInstance(id) {
			continue
		}
		d.Id = id
		in = append(in, d)
		zones[d.Zone] = true
		if d.Zone == members[p.me].Zone {
			peers++
		}
		here = here || id == p.me
	}
	copies := p.ring.ReplicationFactor()
	out := &ingester.Place{Ingesters: len(in), Copies: copies}
	if p.zones {
		out.Ingesters, out.Copies = peers*len(zones), min(copies, len(zones))
	}
	if here {
		// Not in the ring, this ingester owns nothing by it; a limit of nothing would be none.
		out.Owned = ownedTokens(in, p.me, copies, p.zones)
	}
	return out
}

// ringToken is a token and whose it is.
type ringToken struct {
	token uint32
	of    int
}

// ownedTokens returns the tokens of the keys whose replicas include the instance me: going up the
// ring from a key, the first copies different instances are its replicas, each in another zone if
// zones.
func ownedTokens(in []ring.InstanceDesc, me string, copies int, zones bool) ring.TokenRanges {
	var tokens []ringToken
	places := map[string]bool{}
	for k := range in {
		if places[in[k].Zone] = true; zones && in[k].Zone == "" {
			places[in[k].Id] = true
		}
		for _, t := range in[k].Tokens {
			tokens = append(tokens, ringToken{t, k})
		}
	}
	slices.SortFunc(tokens, func(a, b ringToken) int { return cmp.Compare(a.token, b.token) })
	if zones {
		copies = min(copies, len(places)) // the walk need not look for more
	}
	out := ring.TokenRanges{}
	add := func(from, to uint32) {
		if n := len(out); n > 0 && out[n-1]+1 == from && from != 0 {
			out[n-1] = to
			return
		}
		out = append(out, from, to)
	}
	last := len(tokens) - 1
	seen := make([]int, 0, copies)
	owns := func(at int) bool { return walk(tokens, at, in, seen, zones, me) }
	// The keys up to the first token, and those from the last one on, begin at the first token.
	first := owns(0)
	if first && tokens[0].token > 0 {
		add(0, tokens[0].token-1)
	}
	for at := 1; at <= last; at++ {
		if tokens[at].token != tokens[at-1].token && owns(at) {
			add(tokens[at-1].token, tokens[at].token-1)
		}
	}
	if first {
		add(tokens[last].token, ^uint32(0))
	}
	return out
}

// walk says whether me is among the replicas found from tokens[at] on; seen has room for all of
// them.
func walk(tokens []ringToken, at int, in []ring.InstanceDesc, seen []int, zones bool, me string) bool {
	copies := min(cap(seen), len(in))
	seen = seen[:0]
	for range tokens {
		if len(seen) == copies {
			return false
		}
		of := tokens[at].of
		if at++; at == len(tokens) {
			at = 0
		}
		if slices.ContainsFunc(seen, func(s int) bool { return s == of || zones && in[of].Zone != "" && in[s].Zone == in[of].Zone }) {
			continue
		}
		if in[of].Id == me {
			return true
		}
		seen = append(seen, of)
	}
	return false
}
