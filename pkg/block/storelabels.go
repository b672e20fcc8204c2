package block

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// LabelNames returns the names of labels of matching series, sorted. Errors: as Select.
func (b *Block) LabelNames(ctx context.Context, matchers []*labels.Matcher) (names []string, err error) {
	if len(matchers) == 0 {
		err = faults(func() error {
			names, err = b.opened.index.LabelNames(ctx)
			return err
		})
	} else {
		names, err = b.labelNamesOf(ctx, matchers)
	}
	if err != nil {
		return nil, fmt.Errorf("list label names of block %s: %w", b.opened.key.block, b.corrupted(ctx, err))
	}
	names = cloneAll(names)
	slices.Sort(names)
	return names, nil
}

// labelNamesOf returns the names of labels of matching series. The TSDB's reader makes room for as many labels
// as a series announces, so it is not asked.
func (b *Block) labelNamesOf(ctx context.Context, matchers []*labels.Matcher) (names []string, err error) {
	refs, err := b.expand(ctx, matchers)
	if err != nil {
		return nil, err
	}
	s, e, found := &SeriesSet{ctx: ctx, block: b}, b.opened.entries(0), map[uint32]struct{}{}
	for batch := range slices.Chunk(refs, batchSeries) {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.foresee(batch, len(batch)); err != nil {
			return nil, err
		}
		err := faults(func() error {
			for _, ref := range batch {
				if _, err := e.read(ref, nil, 1, 0); err != nil { // no chunks
					return err
				}
				for i := 0; i < len(e.pairs); i += 2 {
					found[e.pairs[i]] = struct{}{}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for symbol := range found {
		name, ok := e.symbols.text(symbol)
		if !ok {
			return nil, errs.New(errs.Internal, "its index is corrupted: a series has the symbol %d of %d", symbol, e.symbols.n)
		}
		names = append(names, string(name))
	}
	return names, nil
}

// LabelValues returns the values that the label name has in matching series, sorted. Errors: as
// Select.
func (b *Block) LabelValues(ctx context.Context, name string, matchers []*labels.Matcher) (values []string, err error) {
	if len(matchers) == 0 {
		err = faults(func() error {
			values, err = b.opened.index.LabelValues(ctx, name, nil)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list label values of block %s: %w", b.opened.key.block, b.corrupted(ctx, err))
		}
		values = cloneAll(values)
		slices.Sort(values)
		return values, nil
	}
	set, err := b.Select(ctx, Selection{
		MinTime: b.opened.mint, MaxTime: b.opened.maxt, LabelsOnly: true,
		Matchers: append(slices.Clone(matchers), labels.MustNewMatcher(labels.MatchNotEqual, name, "")),
	})
	if err != nil {
		return nil, err
	}
	found := map[string]struct{}{}
	for set.Next() {
		v := set.At().Labels.Get(name)
		if _, ok := found[v]; !ok {
			v = strings.Clone(v)
			found[v] = struct{}{}
			values = append(values, v)
		}
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	slices.Sort(values)
	return values, set.Close()
}

// cloneAll copies strings that lie in a mapped file, and leaves out the empty one.
func cloneAll(in []string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		if s != "" {
			out = append(out, strings.Clone(s))
		}
	}
	return out
}
