package alertmanager

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/provider/mem"
)

// alertStore keeps the alerts of one tenant on this replica: upstream's, and a way in for what other replicas
// know. Upstream takes whatever is put last; it says how old the alert is that it has, but not in one step
// with taking another. All that is put passes here, one at a time.
type alertStore struct {
	*mem.Alerts

	putting chan struct{} // has an item from the look at what is there until it is replaced
	taken   *atomic.Int64 // how many were put, without those that were refused
}

// Put implements provider.Alerts: what is put was said just now.
func (a *alertStore) Put(ctx context.Context, all ...*alert.Alert) error {
	a.putting <- struct{}{}
	defer func() { <-a.putting }()
	return a.Alerts.Put(ctx, all...)
}

// merge puts those of all that are newer than what is there.
func (a *alertStore) merge(ctx context.Context, all ...*alert.Alert) error {
	a.putting <- struct{}{}
	defer func() { <-a.putting }()
	for _, x := range all {
		if old, err := a.Get(x.Fingerprint()); err == nil && !old.UpdatedAt.Before(x.UpdatedAt) {
			continue
		}
		if err := a.Alerts.Put(ctx, x); err != nil {
			return err
		}
	}
	return nil
}
