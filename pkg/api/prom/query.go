package prom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Query answers an instant query.
func (a *API) Query(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	limit, err := limitParam(r)
	if err != nil {
		return err
	}
	ts, err := timeParam(r, "time", a.b.Now())
	if err != nil {
		return err
	}
	ctx, cancel, opts, err := a.queryContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	qs := r.Form.Get("query")
	if err := a.checkSize(ctx, qs); err != nil {
		return err
	}
	q, err := a.b.Engine.NewInstantQuery(ctx, a.b.Storage, opts, qs, ts)
	if err != nil {
		return paramError("query", err)
	}
	defer q.Close()
	if err := a.checkLength(ctx, q); err != nil {
		return err
	}
	return a.run(ctx, w, r, q, limit)
}

// QueryRange answers a range query.
func (a *API) QueryRange(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	limit, err := limitParam(r)
	if err != nil {
		return err
	}
	start, end, step, err := gridParams(r)
	if err != nil {
		return err
	}
	ctx, cancel, opts, err := a.queryContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	qs := r.Form.Get("query")
	if err := a.checkSize(ctx, qs); err != nil {
		return err
	}
	q, err := a.b.Engine.NewRangeQuery(ctx, a.b.Storage, opts, qs, start, end, step)
	if err != nil {
		return paramError("query", err)
	}
	defer q.Close()
	if err := a.checkLength(ctx, q); err != nil {
		return err
	}
	return a.run(ctx, w, r, q, limit)
}

// gridParams reads start, end and step of a range query.
func gridParams(r *http.Request) (start, end time.Time, step time.Duration, err error) {
	if start, err = parseTime(r.Form.Get("start")); err != nil {
		return start, end, 0, badParam("start", err)
	}
	if end, err = parseTime(r.Form.Get("end")); err != nil {
		return start, end, 0, badParam("end", err)
	}
	if end.Before(start) {
		return start, end, 0, badParam("end", errors.New("end timestamp must not be before start time"))
	}
	if step, err = parseDuration(r.Form.Get("step")); err != nil {
		return start, end, 0, badParam("step", err)
	}
	if step <= 0 {
		return start, end, 0, badParam("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if step < time.Millisecond {
		// Time has milliseconds in storage; the engine would never advance.
		return start, end, 0, badParam("step", errors.New("query resolution step widths below one millisecond are not accepted"))
	}
	// The ends may be further apart than a Duration holds.
	if length := float64(end.UnixMilli()) - float64(start.UnixMilli()); length >= (maxPoints+1)*float64(step.Milliseconds()) {
		return start, end, 0, errs.New(errs.Invalid, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return start, end, step, nil
}

// queryContext returns the context and the options of one query. The timeout of the request can
// only shorten the configured one.
func (a *API) queryContext(r *http.Request) (context.Context, context.CancelFunc, promql.QueryOpts, error) {
	timeout := a.b.Timeout
	if s := r.Form.Get("timeout"); s != "" {
		asked, err := parseDuration(s)
		if err != nil {
			return nil, nil, nil, badParam("timeout", err)
		}
		timeout = min(timeout, asked)
	}
	var lookback time.Duration
	if s := r.Form.Get("lookback_delta"); s != "" {
		var err error
		if lookback, err = parseDuration(s); err != nil {
			return nil, nil, nil, errs.New(errs.Invalid, "error parsing lookback delta duration: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(a.b.Prepare(r), timeout)
	return ctx, cancel, promql.NewPrometheusQueryOpts(r.Form.Get("stats") == "all", lookback), nil
}

// run executes q and sends its result while q still owns it.
func (a *API) run(ctx context.Context, w http.ResponseWriter, r *http.Request, q promql.Query, limit int) error {
	res := q.Exec(ctx)
	if res.Err != nil {
		return res.Err
	}
	ws := truncate(res, limit)
	statsJSON, err := renderStats(r.Form.Get("stats"), q, &ws)
	if err != nil {
		return err
	}
	if t, ok := q.(timed); ok && work.WantsTiming(r.Header) {
		w.Header().Set("Server-Timing", t.ServerTiming())
	}
	if work.AcceptsExact(r.Header.Get("Accept")) {
		return a.exact(w, r, res.Value, ws)
	}
	a.success(w, r, ws, r.Form.Get("query"), func(out *answer) {
		out.buf = appendString(append(out.buf, `{"resultType":`...), string(res.Value.Type()))
		out.buf = append(out.buf, `,"result":`...)
		out.value(res.Value)
		if statsJSON != nil {
			out.buf = append(append(out.buf, `,"stats":`...), statsJSON...)
		}
		out.buf = append(out.buf, '}')
	})
	return nil
}

// timed is a query that says what it took, as the header Server-Timing does.
type timed interface{ ServerTiming() string }

// tell has the header Server-Timing say, if r asks for it, how long it took since begin to go through a
// number of series. Frontends add how long the whole took.
func (a *API) tell(w http.ResponseWriter, r *http.Request, begin time.Time, series int) {
	if work.WantsTiming(r.Header) {
		took := float64(a.b.Now().Sub(begin)) / float64(time.Millisecond)
		w.Header().Set("Server-Timing", "querier_wall_time;dur="+strconv.FormatFloat(took, 'f', 3, 64)+", fetched_series;val="+strconv.Itoa(series))
	}
}

// renderStats returns the statistics a request asks for, nil for none.
func renderStats(param string, q promql.Query, ws *annotations.Annotations) ([]byte, error) {
	switch param {
	case "":
		return nil, nil
	case "true", "all":
	default:
		ws.Add(fmt.Errorf("value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use %q or %q", param, "true", "all"))
	}
	if q.Stats() == nil {
		return nil, nil
	}
	b, err := json.Marshal(stats.NewQueryStats(q.Stats()))
	if err != nil {
		return nil, fmt.Errorf("encode query statistics: %w", err)
	}
	return b, nil
}

// truncate cuts the result to limit series and returns the warnings of the answer.
func truncate(res *promql.Result, limit int) annotations.Annotations {
	ws := res.Warnings
	if limit <= 0 {
		return ws
	}
	switch v := res.Value.(type) {
	case promql.Matrix:
		if len(v) > limit {
			res.Value = v[:limit]
			ws.Add(errTruncated())
		}
	case promql.Vector:
		if len(v) > limit {
			res.Value = v[:limit]
			ws.Add(errTruncated())
		}
	}
	return ws
}
