package storegateway

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// pulseEvery is how often who waits for counts is told that they go on.
const pulseEvery = time.Second

// pulse sends counts.
type pulse struct {
	to   grpc.ServerStreamingServer[storepb.StatsResponse]
	some bool // the caller takes several messages
	last time.Time
	all  storepb.StatsResponse // if the caller takes one
}

// beat tells the caller that the counting goes on.
func (p *pulse) beat() error {
	if !p.some || time.Since(p.last) < pulseEvery {
		return nil
	}
	return p.send(&storepb.StatsResponse{})
}

func (p *pulse) send(m *storepb.StatsResponse) error {
	err := p.to.Send(m)
	p.last = time.Now()
	return err
}

// add tells what a block consists of.
func (p *pulse) add(name []byte, s *storepb.BlockStats) error {
	if p.some {
		return p.send(&storepb.StatsResponse{Blocks: [][]byte{name}, Stats: []*storepb.BlockStats{s}})
	}
	p.all.Blocks, p.all.Stats = append(p.all.Blocks, name), append(p.all.Stats, s)
	return nil
}

// end sends what was not sent.
func (p *pulse) end() error {
	if p.some {
		return nil
	}
	return p.send(&p.all)
}

// Stats counts series by label in each block, without those that are gone.
func (g *Gateway) Stats(req *storepb.StatsRequest, to grpc.ServerStreamingServer[storepb.StatsResponse]) error {
	ctx := to.Context()
	end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	gone, err := goneOf(req.Gone)
	if err != nil {
		return err
	}
	o, err := g.open(ctx, req.Blocks)
	if err != nil {
		return err
	}
	defer o.close()
	limit := 10
	if req.Limit > 0 {
		limit = int(min(req.Limit, 10_000))
	}
	p := &pulse{to: to, some: req.Piecemeal, last: time.Now()}
	for i, b := range o.blocks {
		s, err := g.stats(ctx, b, limit, gone, p.beat)
		if err != nil {
			return err
		}
		if err := p.add(o.names[i], &storepb.BlockStats{Block: o.names[i], Series: s.Series,
			SeriesByMetric: counts(s.SeriesByMetric), ValuesByLabel: counts(s.ValuesByLabel), SeriesByPair: counts(s.SeriesByPair)}); err != nil {
			return err
		}
	}
	return p.end()
}

func (g *Gateway) stats(ctx context.Context, b *block.Block, limit int, all tombstone.Set, progress func() error) (block.Stats, error) {
	memory := g.room()
	defer memory.leave()
	here := all.In(b.Range())
	gone := block.Gone{Of: here.Of, Memory: memory.use}
	for _, t := range here.List() {
		selectors, _ := t.Series()
		gone.Selectors = append(gone.Selectors, selectors...)
	}
	return b.Stats(ctx, limit, gone, progress)
}

// goneOf compiles what a caller says is gone. Errors: Invalid.
func goneOf(in []*storepb.Gone) (tombstone.Set, error) {
	list := make([]tombstone.Tombstone, len(in))
	for i, g := range in {
		selectors, err := selectorsOf(g.Selectors)
		if err != nil {
			return tombstone.Set{}, err
		}
		except, err := selectorsOf(g.Except)
		if err != nil {
			return tombstone.Set{}, err
		}
		list[i] = tombstone.New(g.MinTime, g.MaxTime, selectors, except)
	}
	return tombstone.SetOf(list), nil
}

func selectorsOf(in []*ingesterpb.Matchers) ([][]*labels.Matcher, error) {
	out := make([][]*labels.Matcher, len(in))
	for i, s := range in {
		var err error
		if out[i], err = matchersOf(s.Matchers); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func counts(in []block.Count) []*storepb.NamedCount {
	out := make([]*storepb.NamedCount, len(in))
	for i, c := range in {
		out[i] = &storepb.NamedCount{Name: c.Name, Count: c.Count}
	}
	return out
}
