package rules

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Preview answers with what the rules in the body would have done between start and end, and stores nothing.
func (a *API) Preview(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	now := time.Now()
	end, err := timeOf(r, "end", now)
	if err != nil {
		return err
	}
	start, err := timeOf(r, "start", end.Add(-24*time.Hour))
	if err != nil {
		return err
	}
	data, err := body(w, r, maxBodyBytes)
	if err != nil {
		return err
	}
	out, err := a.b.Preview(r.Context(), id, data, start, end)
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, success{"success", out, nil})
}

// timeOf reads a time of the query: seconds since 1970, RFC 3339, or how long ago, as 7d.
func timeOf(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if ago, err := model.ParseDuration(text); err == nil {
		return time.Now().Add(-time.Duration(ago)), nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(s) < 1e11 {
		return time.UnixMilli(int64(s * 1000)).UTC(), nil
	}
	return time.Time{}, errs.New(errs.Invalid, "invalid parameter %q: %q is no time", name, text)
}
