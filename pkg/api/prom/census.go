package prom

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// SeriesSource knows the series that a tenant has of late.
type SeriesSource interface {
	// RecentSeries calls f for each series that matches, once: of all in memory, or with active of those
	// that have had samples of late.
	RecentSeries(ctx context.Context, active bool, ms []*labels.Matcher, f func(labels.Labels) error) error
}

// defaultCounted is how many labels or values are shown if a request does not say.
const defaultCounted = 20

// census is the parameters of the cardinality APIs.
type census struct {
	view   limits.View
	active bool
	limit  int
	ms     []*labels.Matcher
}

func (a *API) countingParams(w http.ResponseWriter, r *http.Request) (census, error) {
	var c census
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return c, err
	}
	c.view = a.b.Limits(id)
	if !limits.CardinalityAnalysisEnabled.Of(c.view) {
		return c, errs.New(errs.Invalid, "cardinality analysis is disabled for the tenant: %s", id)
	}
	if err := parseForm(w, r); err != nil {
		return c, err
	}
	switch method := r.Form.Get("count_method"); method {
	case "", "inmemory":
	case "active":
		c.active = true
	default:
		return c, badParam("count_method", errors.New("it must be inmemory or active"))
	}
	c.limit = defaultCounted
	if s := r.Form.Get("limit"); s != "" {
		most := limits.CardinalityAnalysisMaxResults.Of(c.view)
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || most > 0 && n > most {
			return c, badParam("limit", errors.New("it must be a number of at most "+strconv.Itoa(most)))
		}
		c.limit = n
	}
	selector := r.Form.Get("selector")
	if selector == "" {
		// Every series has a name, or some other label that is not empty.
		c.ms = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")}
		return c, nil
	}
	sets, err := a.b.Engine.ParseSelectors(r.Context(), []string{selector})
	if err != nil {
		return c, paramError("selector", err)
	}
	c.ms = sets[0]
	return c, nil
}

// values counts the series of each value of a label.
type values map[string]int

// labelCount is what is known of one label.
type labelCount struct {
	name   string
	values values
	series int
}

// LabelNamesCardinality answers which labels have the most values.
func (a *API) LabelNamesCardinality(w http.ResponseWriter, r *http.Request) error {
	c, err := a.countingParams(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	found, _, err := a.count(ctx, c, nil)
	if err != nil {
		return err
	}
	total := 0
	for _, l := range found {
		total += len(l.values)
	}
	slices.SortFunc(found, func(a, b *labelCount) int {
		return cmp.Or(cmp.Compare(len(b.values), len(a.values)), cmp.Compare(a.name, b.name))
	})
	a.writers.send(w, r, func(out *answer) {
		out.buf = strconv.AppendInt(append(out.buf, `{"label_values_count_total":`...), int64(total), 10)
		out.buf = strconv.AppendInt(append(out.buf, `,"label_names_count":`...), int64(len(found)), 10)
		out.buf = append(out.buf, `,"cardinality":[`...)
		for i, l := range found[:min(len(found), c.limit)] {
			out.comma(i)
			out.buf = appendString(append(out.buf, `{"label_name":`...), l.name)
			out.buf = append(strconv.AppendInt(append(out.buf, `,"label_values_count":`...), int64(len(l.values)), 10), '}')
		}
		out.buf = append(out.buf, "]}"...)
	})
	return nil
}

// LabelValuesCardinality answers how many series each value of some labels has.
func (a *API) LabelValuesCardinality(w http.ResponseWriter, r *http.Request) error {
	c, err := a.countingParams(w, r)
	if err != nil {
		return err
	}
	names := slices.Concat(r.Form["label_names[]"])
	slices.Sort(names)
	names = slices.Compact(names)
	most := limits.LabelValuesMaxCardinalityLabelNames.Of(c.view)
	if len(names) == 0 || most > 0 && len(names) > most {
		return badParam("label_names[]", errors.New("between 1 and "+strconv.Itoa(most)+" names are needed"))
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	found, series, err := a.count(ctx, c, names)
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *labelCount) int {
		return cmp.Or(cmp.Compare(b.series, a.series), cmp.Compare(a.name, b.name))
	})
	a.writers.send(w, r, func(out *answer) {
		out.buf = strconv.AppendInt(append(out.buf, `{"series_count_total":`...), int64(series), 10)
		out.buf = append(out.buf, `,"labels":[`...)
		for i, l := range found {
			out.comma(i)
			out.labelValues(l, c.limit)
		}
		out.buf = append(out.buf, "]}"...)
	})
	return nil
}

// labelValues writes the values of a label with the most series.
func (a *answer) labelValues(l *labelCount, limit int) {
	list := make([]string, 0, len(l.values))
	for v := range l.values {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(l.values[b], l.values[a]), cmp.Compare(a, b))
	})
	a.buf = appendString(append(a.buf, `{"label_name":`...), l.name)
	a.buf = strconv.AppendInt(append(a.buf, `,"label_values_count":`...), int64(len(list)), 10)
	a.buf = strconv.AppendInt(append(a.buf, `,"series_count":`...), int64(l.series), 10)
	a.buf = append(a.buf, `,"cardinality":[`...)
	for i, v := range list[:min(len(list), limit)] {
		a.comma(i)
		a.buf = appendString(append(a.buf, `{"label_value":`...), v)
		a.buf = append(strconv.AppendInt(append(a.buf, `,"series_count":`...), int64(l.values[v]), 10), '}')
		a.spill()
	}
	a.buf = append(a.buf, "]}"...)
}

func (a *answer) comma(i int) {
	if i > 0 {
		a.buf = append(a.buf, ',')
	}
}

// count counts the series by the values of labels, of all or of those in names. What is counted must
// not be larger than the tenant's limit.
func (a *API) count(ctx context.Context, c census, names []string) (found []*labelCount, series int, err error) {
	by := map[string]*labelCount{}
	size, most := 0, limits.LabelNamesAndValuesResultsMaxSize.Of(c.view)
	err = a.b.Series.RecentSeries(ctx, c.active, c.ms, func(ls labels.Labels) error {
		series++
		if series%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ls.Range(func(l labels.Label) {
			if names != nil && !slices.Contains(names, l.Name) {
				return
			}
			x := by[l.Name]
			if x == nil {
				x = &labelCount{name: l.Name, values: values{}}
				by[l.Name] = x
				size += len(l.Name)
			}
			if _, ok := x.values[l.Value]; !ok {
				size += len(l.Value)
			}
			x.values[l.Value]++
			x.series++
		})
		if most > 0 && size > most {
			return errs.New(errs.TooLarge, "label names and values are larger than %d bytes; a selector makes them fewer", most)
		}
		return nil
	})
	for _, x := range by {
		found = append(found, x)
	}
	return found, series, err
}

// ActiveSeries lists the series that have had samples of late.
func (a *API) ActiveSeries(w http.ResponseWriter, r *http.Request) error {
	begin := a.b.Now()
	c, err := a.countingParams(w, r)
	if err != nil {
		return err
	}
	if r.Form.Get("selector") == "" {
		return badParam("selector", errors.New("it is missing"))
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	var list []labels.Labels
	size, most := 0, limits.ActiveSeriesResultsMaxSize.Of(c.view)
	err = a.b.Series.RecentSeries(ctx, true, c.ms, func(ls labels.Labels) error {
		if size += int(ls.ByteSize()); most > 0 && size > most {
			return errs.New(errs.BodyTooLarge, "active series are larger than %d bytes; a selector makes them fewer", most)
		}
		list = append(list, ls)
		return nil
	})
	if err != nil {
		return err
	}
	a.tell(w, r, begin, len(list))
	a.writers.send(w, r, func(out *answer) {
		out.buf = append(out.buf, `{"data":[`...)
		for i, ls := range list {
			out.comma(i)
			out.buf = appendLabels(out.buf, ls)
			out.spill()
		}
		out.buf = append(out.buf, "]}"...)
	})
	return nil
}
