package members

import (
	"context"
	"slices"
	"time"

	"github.com/grafana/dskit/ring"
)

// Share is how many tokens a member has to have, where it keeps them, and how it chooses new ones.
type Share struct {
	Number    int
	File      string
	Generator ring.TokenGenerator // nil: they are drawn
}

// checkShare gives this process new tokens for those that the ring gave to another member. Of two with the same tokens,
// as of disks that were copied, the ring leaves each to one, by name. Who starts while the other lives sets them aside
// (Claim.Check); of two that start in the same moment, one is active without any, and gets no series.
func (c *Caretaker) checkShare(ctx context.Context, d *ring.Desc) {
	if m, ok := d.Ingesters[c.deps.ID]; !ok || !c.lacks(m) {
		return
	}
	var all ring.Tokens
	lost := 0
	err := change(ctx, c.deps.KV, c.deps.Key, func(d *ring.Desc) bool {
		m := d.Ingesters[c.deps.ID]
		if !c.lacks(m) {
			return false
		}
		g := c.deps.Share.Generator
		if g == nil {
			g = ring.NewRandomTokenGenerator()
		}
		_ = g.CanJoin(d.Ingesters) // shows it the others; this process is in the ring already
		lost = c.deps.Share.Number - len(m.Tokens)
		all = append(slices.Clone(ring.Tokens(m.Tokens)), g.GenerateTokens(lost, d.GetTokens())...)
		slices.Sort(all)
		m.Tokens = all
		m.Timestamp = max(m.Timestamp+1, time.Now().Unix()) // an entry is only heard if it is newer
		d.Ingesters[c.deps.ID] = m
		return true
	})
	if err != nil {
		c.deps.Log.Warn("no new tokens for those that are another ingester's, tried again at the next heartbeat", "err", err)
		return
	}
	if all == nil {
		return
	}
	c.metrics.tokens.Add(float64(lost))
	c.deps.Log.Error("tokens of this ingester were those of another one, too, as of a disk that was copied; it has chosen new ones", "tokens", lost)
	if err := all.StoreToFile(c.deps.Share.File); err != nil {
		c.deps.Log.Warn("new tokens not written to disk", "file", c.deps.Share.File, "err", err)
	}
}

// lacks says whether m, which is this process, takes writes with fewer tokens than it has to have.
func (c *Caretaker) lacks(m ring.InstanceDesc) bool {
	return c.deps.Share.File != "" && m.State == ring.ACTIVE && m.Addr == c.deps.Addr && len(m.Tokens) < c.deps.Share.Number
}
