package querier

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// LabelNames returns the names of the labels of the series that match, sorted, each once. hints
// may limit how many; the first ones are returned.
func (s *session) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return s.shownLabels(ctx, hints, "", matchers, func(ctx context.Context, s *session, hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, error) {
		return s.labels(ctx, hints, labelCall{
			ingester: func(ctx context.Context, c ingesterpb.IngesterQueryClient, sc scope, limit uint64) (labelStrings, error) {
				r, err := c.LabelNames(ctx, &ingesterpb.LabelNamesRequest{MinTime: sc.mint, MaxTime: sc.maxt, Matchers: toWire(matchers), Limit: limit})
				return labelStrings{r.GetNames(), r.GetCompleteSince()}, err
			},
			store: func(ctx context.Context, c storepb.StoreGatewayClient, sc scope, blocks [][]byte) ([]string, [][]byte, error) {
				r, err := c.LabelNames(ctx, &storepb.LabelNamesRequest{MinTime: sc.mint, MaxTime: sc.blocksMaxt, Matchers: toWire(matchers), Blocks: blocks})
				return r.GetNames(), r.GetBlocks(), err
			},
		})
	})
}

// LabelValues returns the values that label name has in the series that match, as LabelNames does.
func (s *session) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return s.shownLabels(ctx, hints, name, matchers, valuesOf(name))
}

// valuesOf lists the values of label name, also those that only deleted series have.
func valuesOf(name string) listing {
	return func(ctx context.Context, s *session, hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, error) {
		return s.labels(ctx, hints, labelCall{
			ingester: func(ctx context.Context, c ingesterpb.IngesterQueryClient, sc scope, limit uint64) (labelStrings, error) {
				r, err := c.LabelValues(ctx, &ingesterpb.LabelValuesRequest{Name: name, MinTime: sc.mint, MaxTime: sc.maxt, Matchers: toWire(matchers), Limit: limit})
				return labelStrings{r.GetValues(), r.GetCompleteSince()}, err
			},
			store: func(ctx context.Context, c storepb.StoreGatewayClient, sc scope, blocks [][]byte) ([]string, [][]byte, error) {
				r, err := c.LabelValues(ctx, &storepb.LabelValuesRequest{Name: name, MinTime: sc.mint, MaxTime: sc.blocksMaxt, Matchers: toWire(matchers), Blocks: blocks})
				return r.GetValues(), r.GetBlocks(), err
			},
		})
	}
}

// labelCall is one question to both kinds of places.
type labelCall struct {
	ingester func(ctx context.Context, c ingesterpb.IngesterQueryClient, sc scope, limit uint64) (labelStrings, error)
	store    func(ctx context.Context, c storepb.StoreGatewayClient, sc scope, blocks [][]byte) ([]string, [][]byte, error)
}

// labelStrings is one ingester's answer.
type labelStrings struct {
	strings []string
	since   int64 // see dated
}

func (l labelStrings) completeSince() int64 { return l.since }

func (s *session) labels(ctx context.Context, hints *storage.LabelHints, call labelCall) ([]string, error) {
	release, err := s.q.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	sc, err := s.q.scope(ctx, s.mint, s.maxt)
	if err != nil {
		return nil, err
	}
	limit := 0
	if hints != nil {
		limit = max(hints.Limit, 0)
	}
	var recent, old [][]string
	g, gctx := errs.Together(ctx)
	if sc.ingesters {
		g.Go(func() error {
			answers, err := ask(gctx, s.q, sc.replicas, sc.mint, func(ctx context.Context, c ingesterpb.IngesterQueryClient) (labelStrings, error) {
				return call.ingester(ctx, c, sc, uint64(limit))
			})
			for _, a := range answers {
				recent = append(recent, a.strings)
			}
			return err
		})
	}
	if sc.blocks {
		g.Go(func() (err error) {
			old, err = askStores(gctx, s.q, sc, storeCall[[]string]{call: func(ctx context.Context, to storeAsked) ([]string, [][]byte, error) {
				return call.store(ctx, to.client, sc, to.blocks)
			}})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	_, _, end := s.q.deps.Turns.Begin(ctx)
	defer end()
	all := union(append(recent, old...))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

// union returns the strings of all lists, sorted, each once.
func union(lists [][]string) []string {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	all := make([]string, 0, n)
	for _, l := range lists {
		all = append(all, l...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
