package storegateway

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// Stats counts series by label in each block, without those that are gone.
func (g *Gateway) Stats(ctx context.Context, req *storepb.StatsRequest) (*storepb.StatsResponse, error) {
	end, err := g.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	gone, err := goneOf(req.Gone)
	if err != nil {
		return nil, err
	}
	o, err := g.open(ctx, req.Blocks)
	if err != nil {
		return nil, err
	}
	defer o.close()
	limit := 10
	if req.Limit > 0 {
		limit = int(min(req.Limit, 10_000))
	}
	out := &storepb.StatsResponse{Blocks: o.names}
	for i, b := range o.blocks {
		s, err := g.stats(ctx, b, limit, gone)
		if err != nil {
			return nil, err
		}
		out.Stats = append(out.Stats, &storepb.BlockStats{Block: o.names[i], Series: s.Series,
			SeriesByMetric: counts(s.SeriesByMetric), ValuesByLabel: counts(s.ValuesByLabel), SeriesByPair: counts(s.SeriesByPair)})
	}
	return out, nil
}

func (g *Gateway) stats(ctx context.Context, b *block.Block, limit int, all tombstone.Set) (block.Stats, error) {
	memory := g.room()
	defer memory.leave()
	here := all.In(b.Range())
	gone := block.Gone{Of: here.Of, Memory: memory.use}
	for _, t := range here.List() {
		selectors, _ := t.Series()
		gone.Selectors = append(gone.Selectors, selectors...)
	}
	return b.Stats(ctx, limit, gone)
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
