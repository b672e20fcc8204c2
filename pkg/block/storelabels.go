package block

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
)

// LabelNames returns the names of labels of matching series, sorted. Errors: as Select.
func (b *Block) LabelNames(ctx context.Context, matchers []*labels.Matcher) (names []string, err error) {
	if len(matchers) == 0 {
		err = faults(func() error {
			names, err = b.opened.index.LabelNames(ctx)
			return err
		})
	} else {
		var refs []storage.SeriesRef
		if refs, err = b.expand(ctx, matchers); err == nil {
			err = faults(func() error {
				names, err = b.opened.index.LabelNamesFor(ctx, index.NewListPostings(refs))
				return err
			})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list label names of block %s: %w", b.opened.key.block, corrupted(ctx, err))
	}
	names = cloneAll(names)
	slices.Sort(names)
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
			return nil, fmt.Errorf("list label values of block %s: %w", b.opened.key.block, corrupted(ctx, err))
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

// Count is a name with how often it occurs.
type Count struct {
	Name  string
	Count uint64
}

// Stats says what a block consists of; the lists hold the largest entries first.
type Stats struct {
	Series         uint64
	SeriesByMetric []Count
	ValuesByLabel  []Count
	SeriesByPair   []Count // of name=value
}

// Stats counts from the index's postings, of which only the lengths are read. limit bounds each
// list. Errors: as Select.
func (b *Block) Stats(ctx context.Context, limit int) (Stats, error) {
	s := Stats{Series: b.opened.series}
	names, err := b.LabelNames(ctx, nil)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		values, err := b.LabelValues(ctx, name, nil)
		if err != nil {
			return s, err
		}
		s.ValuesByLabel = append(s.ValuesByLabel, Count{name, uint64(len(values))})
		for _, v := range values {
			if err := ctx.Err(); err != nil {
				return s, context.Cause(ctx)
			}
			n, err := b.count(ctx, name, v)
			if err != nil {
				return s, err
			}
			s.SeriesByPair = keepLargest(append(s.SeriesByPair, Count{name + "=" + v, n}), limit, false)
			if name == model.MetricNameLabel {
				s.SeriesByMetric = keepLargest(append(s.SeriesByMetric, Count{v, n}), limit, false)
			}
		}
	}
	s.ValuesByLabel = keepLargest(s.ValuesByLabel, limit, true)
	s.SeriesByPair = keepLargest(s.SeriesByPair, limit, true)
	s.SeriesByMetric = keepLargest(s.SeriesByMetric, limit, true)
	return s, nil
}

// count is the number of series with a label.
func (b *Block) count(ctx context.Context, name, value string) (n uint64, err error) {
	err = faults(func() error {
		p, err := b.opened.index.Postings(ctx, name, value)
		if err != nil {
			return err
		}
		for p.Next() {
			n++
		}
		return p.Err()
	})
	if err != nil {
		return 0, fmt.Errorf("count series of block %s: %w", b.opened.key.block, corrupted(ctx, err))
	}
	return n, nil
}

// keepLargest sorts and cuts a list; unless it is the last time, only when it has grown much.
func keepLargest(list []Count, limit int, last bool) []Count {
	if !last && len(list) < 16*limit+1024 {
		return list
	}
	slices.SortFunc(list, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return list[:min(len(list), limit)]
}
