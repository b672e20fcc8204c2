package ingester

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// ActiveSeries streams the labels of the active series that the matchers select. Errors: Invalid
// without matchers, and what beginRead returns.
func (i *Ingester) ActiveSeries(req *ingesterpb.ActiveSeriesRequest, to grpc.ServerStreamingServer[ingesterpb.ActiveSeriesResponse]) error {
	ctx := to.Context()
	r, err := i.beginRead(ctx)
	if err != nil {
		return err
	}
	defer r.end()
	ms, err := matchersOf(req.Matchers)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return errs.New(errs.Invalid, "no matchers")
	}
	if r.t == nil {
		return nil
	}
	tick := i.tick()
	r.t.activity.expireOnce(tick, i.clock.oldest(tick))
	w := activeStream{to: to, msg: &ingesterpb.ActiveSeriesResponse{}, native: req.NativeHistograms}
	wanted := func(ref head.Ref) bool {
		active, buckets := r.t.activity.state(ref)
		w.buckets = uint64(max(0, buckets))
		return active && (!req.NativeHistograms || buckets >= 0)
	}
	err = r.t.head.SelectSeries(ctx, ms, wanted, func(_ head.Ref, ls labels.Labels) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n := uint64(req.ShardCount); n > 0 && labels.StableHash(ls)%n != uint64(req.ShardIndex) {
			return nil
		}
		return w.add(ls)
	})
	if err != nil {
		if errors.Is(err, context.Cause(ctx)) {
			return err
		}
		return fmt.Errorf("select active series of tenant %s: %w", r.t.id, err)
	}
	return w.flush()
}

// activeStream sends series in messages of a bounded size.
type activeStream struct {
	to      grpc.ServerStreamingServer[ingesterpb.ActiveSeriesResponse]
	msg     *ingesterpb.ActiveSeriesResponse
	native  bool
	buckets uint64 // of the next series
	bytes   int
}

func (w *activeStream) add(ls labels.Labels) error {
	p := pairs(ls)
	w.msg.Series = append(w.msg.Series, &ingesterpb.SeriesLabels{Labels: p})
	if w.native {
		w.msg.Buckets = append(w.msg.Buckets, w.buckets)
	}
	for _, s := range p {
		w.bytes += len(s)
	}
	if len(w.msg.Series) < messageSeries && w.bytes < messageBytes {
		return nil
	}
	return w.flush()
}

func (w *activeStream) flush() error {
	if len(w.msg.Series) == 0 {
		return nil
	}
	msg := w.msg
	w.msg, w.bytes = &ingesterpb.ActiveSeriesResponse{}, 0
	return w.to.Send(msg)
}

// state says whether a series is active, and the number of buckets of its newest sample, -1 if that is
// no native histogram. It takes no lock.
func (a *activity) state(ref head.Ref) (active bool, buckets int) {
	p, k := a.page(uint64(ref)/pageSeries), uint64(ref)%pageSeries
	if p == nil || p.stamps[k].Load() == 0 {
		return false, -1
	}
	if b := p.buckets.Load(); b != nil {
		return true, int(b[k].Load()) - 1
	}
	return true, -1
}
