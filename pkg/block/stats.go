package block

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

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

// Gone says which samples of a block do not count any more. The zero Gone says none.
type Gone struct {
	// Selectors select the series that may have some, each an alternative; one without matchers all.
	Selectors [][]*labels.Matcher
	// Of returns what is gone of a series.
	Of func(labels.Labels) tombstones.Intervals
	// Memory is told how many bytes looking for them takes, as Selection.Memory is.
	Memory func(bytes int64) error
}

// Range is the time of the samples, in milliseconds, both ends inclusive.
func (b *Block) Range() (mint, maxt int64) { return b.opened.mint, b.opened.maxt - 1 }

// Stats counts from the index's postings, and of series that may be gone from their entries: chunks are
// not read. limit bounds each list. progress, if not nil, is called often while it counts; its error ends that.
// Errors: as Select.
func (b *Block) Stats(ctx context.Context, limit int, gone Gone, progress func() error) (Stats, error) {
	if progress == nil {
		progress = func() error { return nil }
	}
	s := Stats{}
	without, err := b.gone(ctx, gone, progress)
	if err != nil {
		return s, err
	}
	s.Series = b.opened.series - min(b.opened.series, uint64(len(without)))
	names, err := b.LabelNames(ctx, nil)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		values, err := b.LabelValues(ctx, name, nil)
		if err != nil {
			return s, err
		}
		left := uint64(0)
		for _, v := range values {
			if err := ctx.Err(); err != nil {
				return s, context.Cause(ctx)
			}
			if err := progress(); err != nil {
				return s, err
			}
			n, err := b.count(ctx, name, v, without)
			if err != nil {
				return s, err
			}
			if n == 0 {
				continue
			}
			left++
			s.SeriesByPair = keepLargest(append(s.SeriesByPair, Count{name + "=" + v, n}), limit, false)
			if name == model.MetricNameLabel {
				s.SeriesByMetric = keepLargest(append(s.SeriesByMetric, Count{v, n}), limit, false)
			}
		}
		if left > 0 {
			s.ValuesByLabel = append(s.ValuesByLabel, Count{name, left})
		}
	}
	s.ValuesByLabel = keepLargest(s.ValuesByLabel, limit, true)
	s.SeriesByPair = keepLargest(s.SeriesByPair, limit, true)
	s.SeriesByMetric = keepLargest(s.SeriesByMetric, limit, true)
	return s, nil
}

// gone returns the series of which nothing is left, in order. Of a chunk the first and the last sample
// are known: one that is gone but for a stretch between two deletions counts as left.
func (b *Block) gone(ctx context.Context, g Gone, progress func() error) (out []storage.SeriesRef, err error) {
	touched, err := b.touched(ctx, g)
	if err != nil {
		return nil, err
	}
	s, e := &SeriesSet{ctx: ctx, block: b}, b.opened.entries(len(touched))
	var text []byte
	var cs []Chunk
	for batch := range slices.Chunk(touched, batchSeries) {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := progress(); err != nil {
			return nil, err
		}
		if err := s.foresee(batch, len(batch)); err != nil {
			return nil, err
		}
		err := faults(func() error {
			for _, ref := range batch {
				var ls labels.Labels
				var err error
				if cs, err = e.read(ref, cs[:0], math.MinInt64, math.MaxInt64); err != nil {
					return err
				}
				if text, ls, err = e.labels(text[:0]); err != nil {
					return err
				}
				if covered(g.Of(ls), cs) {
					out = append(out, ref)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("find what is gone of block %s: %w", b.opened.key.block, b.corrupted(ctx, err))
		}
	}
	return out, nil
}

// touched returns the series that the selectors of g select, in order.
func (b *Block) touched(ctx context.Context, g Gone) (out []storage.SeriesRef, err error) {
	for _, ms := range g.Selectors {
		if len(ms) == 0 {
			name, value := index.AllPostingsKey()
			ms = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, name, value)}
		}
		refs, err := b.expand(ctx, ms)
		if err != nil {
			return nil, fmt.Errorf("find what is gone of block %s: %w", b.opened.key.block, err)
		}
		if g.Memory != nil {
			if err := g.Memory(int64(len(refs)) * 2 * refBytes); err != nil {
				return nil, err
			}
		}
		out = append(out, refs...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// covered says whether nothing of the chunks is left.
func covered(gone tombstones.Intervals, cs []Chunk) bool {
	return len(gone) > 0 && !slices.ContainsFunc(cs, func(c Chunk) bool {
		return !tombstones.Interval{Mint: c.MinTime, Maxt: c.MaxTime}.IsSubrange(gone)
	})
}

// count is the number of series with a label, but for those that are gone.
func (b *Block) count(ctx context.Context, name, value string, gone []storage.SeriesRef) (n uint64, err error) {
	err = faults(func() error {
		p, err := b.opened.index.Postings(ctx, name, value)
		if err != nil {
			return err
		}
		if len(gone) > 0 {
			p = index.Without(p, index.NewListPostings(gone))
		}
		for p.Next() {
			n++
		}
		return p.Err()
	})
	if err != nil {
		return 0, fmt.Errorf("count series of block %s: %w", b.opened.key.block, b.corrupted(ctx, err))
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
