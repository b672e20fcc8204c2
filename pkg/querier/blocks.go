package querier

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// selectBlocks returns a source for each block with samples in the scope, which the session holds
// from then on. They read with ctx; opening the blocks ends with openCtx.
func (s *session) selectBlocks(ctx, openCtx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher) ([]source, error) {
	snap, err := s.q.deps.Blocks.Open(openCtx, sc.tenant, sc.mint, sc.blocksMaxt)
	if err != nil {
		return nil, err
	}
	s.hold(snap)
	qs, err := snap.ChunkQueriers()
	if err != nil {
		return nil, err
	}
	// Trimming is done once, after the merge, and not by rewriting chunks here.
	h.DisableTrimming = true
	h.End = sc.blocksMaxt
	h.Limit = 0
	b := s.budgetOf(sc)
	sources := make([]source, len(qs))
	for i, q := range qs {
		sources[i] = &blockSource{
			set:      q.Select(ctx, true, &h, slices.Clone(matchers)...), // TSDB sorts them in place
			budget:   b,
			metrics:  s.q.metrics,
			noChunks: h.Func == seriesOnly,
		}
	}
	return sources, nil
}

// labelsFromBlocks asks every block of the scope. The strings it returns are copies.
func (q *Querier) labelsFromBlocks(ctx context.Context, sc scope, ask func(storage.LabelQuerier) ([]string, error)) (_ [][]string, err error) {
	snap, err := q.deps.Blocks.Open(ctx, sc.tenant, sc.mint, sc.blocksMaxt)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	qs, err := snap.ChunkQueriers()
	if err != nil {
		return nil, err
	}
	lists := make([][]string, len(qs))
	for i, bq := range qs {
		list, err := ask(bq)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			lists[i] = append(lists[i], strings.Clone(v))
		}
	}
	return lists, nil
}
