package querier

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

const (
	// maxComplements bounds the label calls by which it is found out what series that no tombstone
	// touches have. With more, labels of deleted series are listed until compaction removes them, as
	// Prometheus does.
	maxComplements = 16
	// maxDoubtful bounds the values of labels that are looked for among what deletions left.
	maxDoubtful = 500
)

// hidden returns the tombstones that bear on a call.
func (q *Querier) hidden(ctx context.Context, sc scope) (tombstone.Set, error) {
	if q.deps.Tombstones == nil || sc.empty {
		return tombstone.Set{}, nil
	}
	set, err := q.deps.Tombstones(ctx, sc.tenant)
	return set.In(sc.mint, sc.maxt), err
}

// hiding takes deleted samples out of a selection.
type hiding struct {
	set tombstone.Set
	// left are the hashes of touched series of which samples are left. It is for selections
	// without chunks; nil otherwise.
	left map[uint64]struct{}

	hidden tombstone.Intervals // of the current series
}

// hiding finds out what a selection hides.
func (q *Querier) hiding(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, b *budget) (hiding, error) {
	set, err := q.hidden(ctx, sc)
	out := hiding{set: set}
	if err != nil || set.Empty() || h.Func != seriesOnly {
		return out, err
	}
	h.Func, h.Limit = "", 0
	out.left, err = q.left(ctx, sc, h, matchers, set, b)
	return out, err
}

// left returns the hashes of the series that tombstones touch and of which samples are left. Labels
// alone do not tell, so these series are looked into.
func (q *Querier) left(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, set tombstone.Set, b *budget) (map[uint64]struct{}, error) {
	selectors, known := set.Selectors()
	if !known {
		selectors = [][]*labels.Matcher{nil}
	}
	sc.anyOrder = false
	left := map[uint64]struct{}{}
	for _, s := range selectors {
		m, err := q.merged(ctx, sc, h, slices.Concat(matchers, s), b)
		if err != nil {
			return nil, err
		}
		for m.next() {
			some, err := anyLeft(&series{lset: m.lset, metas: m.metas, mint: sc.mint, maxt: sc.maxt, hidden: set.Of(m.lset)})
			if err != nil {
				return nil, err
			}
			if some {
				left[m.lset.Hash()] = struct{}{}
			}
		}
		if m.failure != nil {
			return nil, m.failure
		}
	}
	return left, nil
}

// shows says whether anything of the current series is left.
func (h *hiding) shows(s *selection) (bool, error) {
	if h.set.Empty() {
		return true, nil
	}
	h.hidden = h.set.Of(s.merger.lset)
	switch {
	case len(h.hidden) == 0:
		return true, nil
	case tombstone.Covers(h.hidden, s.mint, s.maxt):
		return false, nil
	case h.left != nil:
		_, ok := h.left[s.merger.lset.Hash()]
		return ok, nil
	}
	return anyLeft(s.series())
}

// anyLeft says whether a series has a sample that is not hidden.
func anyLeft(s *series) (bool, error) {
	it := sampleSeries{s}.Iterator(nil)
	return it.Next() != chunkenc.ValNone, it.Err()
}

// touches says whether something of mint <= t <= maxt is hidden.
func touches(hidden tombstone.Intervals, mint, maxt int64) bool {
	for _, i := range hidden {
		if i.Mint <= maxt && mint <= i.Maxt {
			return true
		}
	}
	return false
}

// withoutHidden drops hidden exemplars.
func withoutHidden(xs []exemplar.Exemplar, hidden tombstone.Intervals) []exemplar.Exemplar {
	if len(hidden) == 0 {
		return xs
	}
	return slices.DeleteFunc(xs, func(x exemplar.Exemplar) bool { return touches(hidden, x.Ts, x.Ts) })
}

// listing lists names or values of labels of matching series in the range of a session.
type listing func(ctx context.Context, s *session, hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, error)

// shownLabels lists names, or values if name is not empty, without those that only deleted series
// have.
func (s *session) shownLabels(ctx context.Context, hints *storage.LabelHints, name string, matchers []*labels.Matcher, list listing) ([]string, annotations.Annotations, error) {
	sc, err := s.q.scope(ctx, s.mint, s.maxt)
	if err != nil {
		return nil, nil, err
	}
	set, err := s.q.hidden(ctx, sc)
	if err != nil {
		return nil, nil, err
	}
	selectors, _ := set.Selectors()
	sets, few := complements(selectors)
	if set.Empty() || !few {
		all, err := list(ctx, s, hints, matchers)
		return all, nil, err
	}
	// Series with samples later than any retention ends are not touched by one.
	since := s.mint
	if at, lapses := set.Lapsed(); lapses {
		since = max(since, at+1)
	}
	untouched := make([][]string, len(sets))
	for i, not := range sets {
		if since > s.maxt {
			break
		}
		if untouched[i], err = list(ctx, newSession(s.q, since, s.maxt), nil, slices.Concat(matchers, not)); err != nil {
			return nil, nil, err
		}
	}
	sure := union(untouched)
	all, err := list(ctx, s, nil, matchers)
	if err != nil {
		return nil, nil, err
	}
	doubtful := slices.DeleteFunc(slices.Clone(all), func(v string) bool { _, ok := slices.BinarySearch(sure, v); return ok })
	if len(doubtful) <= maxDoubtful {
		there, err := s.look(ctx, name, doubtful, matchers)
		if err != nil {
			return nil, nil, err
		}
		all = slices.DeleteFunc(all, func(v string) bool {
			_, doubt := slices.BinarySearch(doubtful, v)
			return doubt && !there[v]
		})
	}
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all, nil, nil
}

// complements returns sets of matchers such that a series fulfils one of them exactly if it matches
// no selector, and whether they are few enough to be asked for.
func complements(selectors [][]*labels.Matcher) (sets [][]*labels.Matcher, few bool) {
	sets = [][]*labels.Matcher{nil}
	for _, ms := range selectors {
		var next [][]*labels.Matcher
		for _, set := range sets {
			for _, m := range ms {
				not, err := m.Inverse()
				if err != nil || len(next) == maxComplements {
					return nil, false
				}
				next = append(next, append(slices.Clip(set), not))
			}
		}
		sets = next
	}
	return sets, true
}

// look returns which of the doubtful names or values series still have of which samples are left.
func (s *session) look(ctx context.Context, name string, doubtful []string, matchers []*labels.Matcher) (map[string]bool, error) {
	there := map[string]bool{}
	if len(doubtful) == 0 {
		return there, nil
	}
	var asked [][]*labels.Matcher
	if name == "" {
		for _, n := range doubtful {
			asked = append(asked, []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, n, "")})
		}
	} else {
		quoted := make([]string, len(doubtful))
		for i, v := range doubtful {
			quoted[i] = regexp.QuoteMeta(v)
		}
		m, err := labels.NewMatcher(labels.MatchRegexp, name, strings.Join(quoted, "|"))
		if err != nil {
			return nil, errs.Wrap(errs.Internal, err)
		}
		asked = append(asked, []*labels.Matcher{m})
	}
	for _, ms := range asked {
		of := newSession(s.q, s.mint, s.maxt)
		hints := &storage.SelectHints{Start: s.mint, End: s.maxt, Func: seriesOnly}
		found := of.sel(ctx, hints, slices.Concat(matchers, ms))
		for found.next() {
			if name != "" {
				there[found.merger.lset.Get(name)] = true
			} else {
				there[ms[0].Name] = true
				break
			}
		}
		if err := errors.Join(found.Err(), of.Close()); err != nil {
			return nil, err
		}
	}
	return there, nil
}
