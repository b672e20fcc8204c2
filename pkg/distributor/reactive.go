package distributor

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// errReactive refuses pushes of a distributor whose limiter holds them back.
var errReactive = errs.WithID(errs.Unavailable, "distributor-reactive-limiter",
	"Try again later, add distributors or ingesters, or raise -distributor.reactive-limiter.max-inflight-limit.",
	"this distributor answers more slowly than usual, or is at its limit of pushes at once, and takes fewer")

// react lets a push through the reactive limiter, if there is one; done must be called with the
// push's end.
func (d *Distributor) react(ctx context.Context) (done func(remotewrite.Written, error), err error) {
	if d.reactive == nil {
		return func(remotewrite.Written, error) {}, nil
	}
	began, err := d.reactive.Enter(ctx)
	if err != nil {
		if errs.KindOf(err) == errs.Unavailable {
			d.metrics.rejected.WithLabelValues("distributor_reactive_limiter").Inc()
		}
		return nil, err
	}
	return func(w remotewrite.Written, err error) {
		kind := errs.KindOf(err)
		// Only what went all the way to the ingesters tells how quick they are.
		d.reactive.Leave(began, w.Samples+w.Histograms > 0 && kind != errs.Accepted || err != nil && (kind == errs.Unavailable || kind == errs.Timeout))
	}, nil
}
