package prom

import (
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
)

const (
	// maxFormBytes bounds a POST form; the longest sensible query is far below it.
	maxFormBytes = 10 << 20
	// maxFormMemory lets a multipart form of maxFormBytes stay in memory instead of on disk.
	maxFormMemory = 2 * maxFormBytes
)

// parseForm reads the URL's and the body's parameters into r.Form. Errors: BodyTooLarge, Invalid.
func parseForm(w http.ResponseWriter, r *http.Request) error {
	var err error
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "multipart/form-data" {
		err = r.ParseMultipartForm(maxFormMemory)
	} else {
		err = r.ParseForm()
	}
	if err == nil {
		if activity.Noted(r.Context()) {
			activity.Note(r.Context(), activity.Asked(r.PostForm))
		}
		return nil
	}
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errs.New(errs.BodyTooLarge, "form is larger than %d bytes", tooBig.Limit)
	}
	return errs.New(errs.Invalid, "error parsing form values: %w", err)
}

// badParam says which parameter is wrong, in the words clients know from Prometheus.
func badParam(name string, err error) error {
	return errs.New(errs.Invalid, "invalid parameter %q: %w", name, err)
}

// paramError is badParam for an error that has a kind: one that is not Invalid says what became of
// the request and not what is wrong with the parameter.
func paramError(name string, err error) error {
	if errs.KindOf(err) != errs.Invalid {
		return err
	}
	return badParam(name, err)
}

// minTime and maxTime are the ends of an open time range, with Prometheus's values: they appear
// in requests of its clients.
func minTime() time.Time { return time.Unix(math.MinInt64/1000+62135596801, 0).UTC() }
func maxTime() time.Time { return time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC() }

// parseTime reads seconds since 1970, with decimals, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		whole, frac := math.Modf(f)
		// The storage counts milliseconds, of which there must be no more than an int64 holds.
		if math.IsNaN(f) || whole >= math.MaxInt64/1000 || whole <= math.MinInt64/1000 {
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
		}
		frac = math.Round(frac*1000) / 1000
		return time.Unix(int64(whole), int64(frac*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	// time.Parse knows years of four digits only; the ends of an open range have more.
	for _, end := range []time.Time{minTime(), maxTime()} {
		if s == end.Format(time.RFC3339Nano) {
			return end, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

func timeParam(r *http.Request, name string, def time.Time) (time.Time, error) {
	s := r.Form.Get(name)
	if s == "" {
		return def, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, badParam(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

// rangeParams reads start and end, which default to all of time.
func rangeParams(r *http.Request) (start, end time.Time, err error) {
	if start, err = timeParam(r, "start", minTime()); err != nil {
		return start, end, err
	}
	end, err = timeParam(r, "end", maxTime())
	return start, end, err
}

// parseDuration reads seconds, with decimals, or Prometheus's 1h30m.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		ns := f * float64(time.Second)
		if math.IsNaN(ns) || ns >= math.MaxInt64 || ns <= math.MinInt64 {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// limitParam reads limit. 0 is none.
func limitParam(r *http.Request) (int, error) {
	s := r.Form.Get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, badParam("limit", err)
	}
	return n, nil
}

// onePast lets the storage find one item more than the limit, which tells that there are more.
func onePast(limit int) int {
	if limit > 0 && limit < math.MaxInt {
		return limit + 1
	}
	return limit
}

// matcherSets reads match[]. A set in which every matcher also matches the empty string would
// select everything and is refused, as in Prometheus.
func (a *API) matcherSets(r *http.Request) ([][]*labels.Matcher, error) {
	sets, err := a.b.Engine.ParseSelectors(r.Context(), r.Form["match[]"])
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return nil, errs.New(errs.Invalid, "match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}
