package prom

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// checkEvery is how many series pass between two looks at whether the client is still there.
const checkEvery = 128

// lookup is the parameters that series, labels and label values have in common.
type lookup struct {
	start, end int64 // milliseconds
	limit      int   // 0: none
	sets       [][]*labels.Matcher
}

// lookupParams reads all but the matchers.
func (a *API) lookupParams(r *http.Request, most limits.Key[int]) (lookup, error) {
	var l lookup
	limit, err := limitParam(r)
	if err != nil {
		return l, err
	}
	l.limit = clip(r.Context(), a, limit, most)
	start, end, err := rangeParams(r)
	if err != nil {
		return l, err
	}
	l.start, l.end = timestamp.FromTime(start), timestamp.FromTime(end)
	return l, nil
}

// listParams reads the parameters of a call that lists names or values.
func (a *API) listParams(w http.ResponseWriter, r *http.Request, most limits.Key[int]) (lookup, error) {
	if err := parseForm(w, r); err != nil {
		return lookup{}, err
	}
	l, err := a.lookupParams(r, most)
	if err != nil {
		return l, err
	}
	l.sets, err = a.matcherSets(r)
	return l, err
}

// bounded returns r's context with the configured timeout.
func (a *API) bounded(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), a.b.Timeout)
}

// find is one call of LabelNames or LabelValues.
type find func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error)

// Labels lists label names.
func (a *API) Labels(w http.ResponseWriter, r *http.Request) error {
	l, err := a.listParams(w, r, limits.MaxLabelNamesLimit)
	if err != nil {
		return err
	}
	return a.list(w, r, l, func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, hints, ms...)
	})
}

// LabelValues lists the values of the label in the path, which may be in the U__ form that
// carries any UTF-8 name.
func (a *API) LabelValues(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return errs.New(errs.Invalid, "invalid label name: %q", name)
	}
	l, err := a.listParams(w, r, limits.MaxLabelValuesLimit)
	if err != nil {
		return err
	}
	return a.list(w, r, l, func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, hints, ms...)
	})
}

// list unites what call finds for each set of matchers, sorts, cuts and sends it.
func (a *API) list(w http.ResponseWriter, r *http.Request, l lookup, call find) error {
	ctx, cancel := a.bounded(r)
	defer cancel()
	q, err := a.b.Storage.Querier(l.start, l.end)
	if err != nil {
		return err
	}
	defer q.Close()
	sets := l.sets
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	var (
		found []string
		ws    annotations.Annotations
	)
	for _, ms := range sets {
		more, moreWs, err := call(ctx, q, &storage.LabelHints{Limit: onePast(l.limit)}, ms)
		if err != nil {
			return err
		}
		ws.Merge(moreWs)
		found = append(found, more...)
		slices.Sort(found)
		found = slices.Compact(found)
	}
	if l.limit > 0 && len(found) > l.limit {
		found = found[:l.limit]
		ws.Add(errTruncated())
	}
	a.success(w, r, ws, "", func(out *answer) { out.strings(found) })
	return nil
}

// Series lists the series that match.
func (a *API) Series(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	if len(r.Form["match[]"]) == 0 {
		return errs.New(errs.Invalid, "no match[] parameter provided")
	}
	l, err := a.lookupParams(r, limits.MaxSeriesQueryLimit)
	if err != nil {
		return err
	}
	// Of the calls that take selectors, this one alone names the parameter, as in Prometheus.
	if l.sets, err = a.matcherSets(r); err != nil {
		return paramError("match[]", err)
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	q, err := a.b.Storage.Querier(l.start, l.end)
	if err != nil {
		return err
	}
	defer q.Close()

	hints := &storage.SelectHints{Start: l.start, End: l.end, Func: "series", Limit: onePast(l.limit)}
	var set storage.SeriesSet
	if len(l.sets) == 1 {
		set = q.Select(ctx, false, hints, l.sets[0]...)
	} else {
		var sets []storage.SeriesSet // sorted, because merging them removes doubles
		for _, ms := range l.sets {
			sets = append(sets, q.Select(ctx, true, hints, ms...))
		}
		set = storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	}
	found, cut, err := collect(ctx, set, l.limit)
	if err != nil {
		return err
	}
	ws := set.Warnings()
	if cut {
		ws.Add(errTruncated())
	}
	a.success(w, r, ws, "", func(out *answer) {
		out.buf = append(out.buf, '[')
		for i, ls := range found {
			if i > 0 {
				out.buf = append(out.buf, ',')
			}
			out.buf = appendLabels(out.buf, ls)
			out.spill()
		}
		out.buf = append(out.buf, ']')
	})
	return nil
}

// collect reads the labels of set, at most limit of them, and says whether there are more. The
// answer can only begin when the set has ended without an error.
func collect(ctx context.Context, set storage.SeriesSet, limit int) (found []labels.Labels, cut bool, err error) {
	for n := 1; set.Next(); n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		if limit > 0 && len(found) == limit {
			return found, true, nil
		}
		found = append(found, set.At().Labels())
	}
	return found, false, set.Err()
}
