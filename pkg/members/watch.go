package members

import (
	"context"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"
)

// watched calls leave before it shows a watcher that a member has gone.
type watched struct {
	kv.Client
	leave func()
}

// Watched returns store as a ring of members should watch it: leave is called before the ring shows
// that a member has gone, or has gone and come back. A member goes when what it held is in object
// storage, so whoever reads both can look there again in time.
func Watched(store kv.Client, leave func()) kv.Client { return &watched{store, leave} }

// WatchKey implements kv.Client.
func (w *watched) WatchKey(ctx context.Context, key string, f func(any) bool) {
	seen := map[string]int64{} // when each registered
	w.Client.WatchKey(ctx, key, func(v any) bool {
		now := map[string]int64{}
		for id, m := range ring.GetOrCreateRingDesc(v).Ingesters {
			if m.State != ring.LEFT {
				now[id] = m.RegisteredTimestamp
			}
		}
		for id, at := range seen {
			if still, ok := now[id]; !ok || still != at {
				w.leave()
				break
			}
		}
		seen = now
		return f(v)
	})
}
