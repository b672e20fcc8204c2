package prom

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// numberParam reads a whole number that defaults to -1.
func numberParam(r *http.Request, name string) (int, error) {
	s := r.Form.Get(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "%s must be a number", name)
	}
	return n, nil
}

// Metadata lists type, help and unit of metrics.
func (a *API) Metadata(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	limit, err := numberParam(r, "limit")
	if err != nil {
		return err
	}
	perMetric, err := numberParam(r, "limit_per_metric")
	if err != nil {
		return err
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	selected, err := a.namesOf(ctx, r)
	if err != nil {
		return err
	}
	most := limit
	if selected != nil {
		most = -1 // those that are not selected do not count
	}
	var found map[string][]metadata.Metadata
	if a.b.Metadata != nil && limit != 0 {
		if found, err = a.b.Metadata.Metadata(ctx, r.Form.Get("metric"), most, perMetric); err != nil {
			return err
		}
	}
	if selected != nil {
		maps.DeleteFunc(found, func(name string, _ []metadata.Metadata) bool { return !selected[name] })
	}
	names := slices.Sorted(maps.Keys(found))
	if limit >= 0 && len(names) > limit {
		names = names[:limit]
	}
	a.success(w, r, nil, "", func(out *answer) {
		out.buf = append(out.buf, '{')
		for i, name := range names {
			if i > 0 {
				out.buf = append(out.buf, ',')
			}
			entries := found[name]
			if perMetric > 0 && len(entries) > perMetric {
				entries = entries[:perMetric]
			}
			out.buf = append(appendString(out.buf, name), ':')
			out.buf = appendMetadata(out.buf, entries)
			out.spill()
		}
		out.buf = append(out.buf, '}')
	})
	return nil
}

func appendMetadata(b []byte, entries []metadata.Metadata) []byte {
	b = append(b, '[')
	for i, m := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"type":`...), string(m.Type))
		b = appendString(append(b, `,"unit":`...), m.Unit)
		b = appendString(append(b, `,"help":`...), m.Help)
		b = append(b, '}')
	}
	return append(b, ']')
}

// Exemplars lists the exemplars of the series that a query selects.
func (a *API) Exemplars(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	start, end, err := rangeParams(r)
	if err != nil {
		return err
	}
	if end.Before(start) {
		return errs.Wrap(errs.Invalid, errors.New("end timestamp must not be before start timestamp"))
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	qs := r.Form.Get("query")
	if err := a.checkSize(ctx, qs); err != nil {
		return err
	}
	expr, err := a.b.Engine.ParseExpr(ctx, qs)
	if err != nil {
		return err // Prometheus does not name the parameter here
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	var found []exemplar.QueryResult
	if a.b.Exemplars != nil {
		q, err := a.b.Exemplars.ExemplarQuerier(ctx)
		if err != nil {
			return err
		}
		if found, err = q.Select(timestamp.FromTime(start), timestamp.FromTime(end), selectors...); err != nil {
			return err
		}
	}
	a.success(w, r, nil, "", func(out *answer) {
		out.buf = append(out.buf, '[')
		for i := range found {
			if i > 0 {
				out.buf = append(out.buf, ',')
			}
			out.exemplars(&found[i])
		}
		out.buf = append(out.buf, ']')
	})
	return nil
}

func (a *answer) exemplars(s *exemplar.QueryResult) {
	a.buf = appendLabels(append(a.buf, `{"seriesLabels":`...), s.SeriesLabels)
	a.buf = append(a.buf, `,"exemplars":[`...)
	for i := range s.Exemplars {
		if i > 0 {
			a.buf = append(a.buf, ',')
		}
		a.buf = appendExemplar(a.buf, &s.Exemplars[i])
		a.spill()
	}
	a.buf = append(a.buf, `]}`...)
}
