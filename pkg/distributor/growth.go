package distributor

import "time"

// growth is a larger shard that is not used yet. Series go to more ingesters only when queriers look
// there, too, and they read the same limits at other times. A smaller shard is used at once: they
// remember the larger one.
type growth struct {
	size int // of the larger shard
	at   time.Time
}

// due says whether the larger shard is to be used from now on.
func (g growth) due(now time.Time) bool { return !g.at.IsZero() && !now.Before(g.at) }

// hold keeps the shard of old, if that of l is larger, until after has passed.
func (l *tenantLimits) hold(old *tenantLimits, now time.Time, after time.Duration) {
	if old == nil || after <= 0 || old.shardSize == 0 || l.shardSize != 0 && l.shardSize <= old.shardSize {
		return
	}
	g := growth{size: l.shardSize, at: now.Add(after)}
	if old.growth.size == g.size && !old.growth.at.IsZero() {
		g.at = old.growth.at
	}
	if !g.due(now) {
		l.growth, l.shardSize = g, old.shardSize
	}
}
