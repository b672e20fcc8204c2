package api

import (
	"context"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// drain counts the requests of tenants under way, so that a process that stops can answer them
// before it takes away what they stand on.
type drain struct {
	mu    sync.Mutex // guards what follows
	under int
	idle  chan struct{} // nil: not draining; closed when under is 0
}

// enter counts a request; leave must follow. Errors: Unavailable.
func (d *drain) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle != nil {
		return errs.New(errs.Unavailable, "the process is stopping")
	}
	d.under++
	return nil
}

func (d *drain) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under--; d.under == 0 && d.idle != nil {
		close(d.idle)
	}
}

// Drain refuses further requests of tenants with 503, which clients send again elsewhere, and
// returns when those under way are answered or ctx ends. The pages of the process stay.
func (a *API) Drain(ctx context.Context) error {
	d := &a.drain
	d.mu.Lock()
	if d.idle == nil {
		d.idle = make(chan struct{})
		if d.under == 0 {
			close(d.idle)
		}
	}
	idle := d.idle
	d.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
