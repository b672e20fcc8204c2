package ruler

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Member is a ruler that is alive.
type Member struct{ ID, Addr string }

// rank orders members for a key: the highest owns it. All who see the same members agree, and when
// one comes or goes no key moves between the others.
func rank(m Member, key ...string) uint64 {
	var h xxhash.Digest
	h.Reset()
	for _, part := range append(key, m.ID) {
		_, _ = h.WriteString(part) // it never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// shard returns the members that share a tenant's groups: size of them, or all if it is 0.
func shard(members []Member, id tenant.ID, size int) []Member {
	if size <= 0 || size >= len(members) {
		return members
	}
	ranked := slices.Clone(members)
	slices.SortFunc(ranked, func(a, b Member) int {
		return cmp.Or(cmp.Compare(rank(b, string(id)), rank(a, string(id))), cmp.Compare(a.ID, b.ID))
	})
	return ranked[:size]
}

// owner returns which of members evaluates a group; false if there are none.
func owner(members []Member, p place, group string) (Member, bool) {
	if len(members) == 0 {
		return Member{}, false
	}
	return slices.MaxFunc(members, func(a, b Member) int {
		key := []string{string(p.tenant), p.namespace, group}
		return cmp.Or(cmp.Compare(rank(a, key...), rank(b, key...)), cmp.Compare(b.ID, a.ID))
	}), true
}

// view is who is there, as one round of looking at the rules sees it.
type view struct {
	members []Member
	self    string
}

func (v view) same(o view) bool { return v.self == o.self && slices.Equal(v.members, o.members) }

// owns says whether this ruler evaluates a group of a tenant with the given shard.
func (v view) owns(shard []Member, p place, group string) bool {
	m, ok := owner(shard, p, group)
	return ok && m.ID == v.self
}
