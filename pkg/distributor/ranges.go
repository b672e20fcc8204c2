package distributor

import (
	"slices"
	"sync/atomic"

	"github.com/grafana/dskit/ring"
)

// tokenRanges remembers the replica set of each range between two neighbouring tokens of the ring: for
// all series whose tokens lie in one range the ring gives the same answer, and to ask it for each new
// series is a fifth of what one costs. It is of one topology and goes with it.
type tokenRanges struct {
	tokens []uint32        // of all ingesters, sorted
	sets   []atomic.Uint32 // number plus one of the set of the range that ends at the token; 0: not asked yet
}

// newTokenRanges returns nil if instances are not all of the ring, which has so many: those left out
// have tokens, too.
func newTokenRanges(instances []ring.InstanceDesc, all int) *tokenRanges {
	if len(instances) == 0 || len(instances) != all {
		return nil
	}
	n := 0
	for i := range instances {
		n += len(instances[i].Tokens)
	}
	tokens := make([]uint32, 0, n)
	for i := range instances {
		tokens = append(tokens, instances[i].Tokens...)
	}
	slices.Sort(tokens)
	tokens = slices.Clip(slices.Compact(tokens))
	if len(tokens) == 0 {
		return nil
	}
	return &tokenRanges{tokens, make([]atomic.Uint32, len(tokens))}
}

// of returns what remembers the set of token. As in the ring, a range ends before its token.
func (r *tokenRanges) of(token uint32) *atomic.Uint32 {
	at, found := slices.BinarySearch(r.tokens, token)
	if found {
		at++
	}
	if at == len(r.tokens) {
		at = 0
	}
	return &r.sets[at]
}
