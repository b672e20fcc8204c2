package audit

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxLimit bounds the records of one answer.
const maxLimit = 10_000

// Serve answers a query; who may ask is decided before. Errors: those of Find, and Invalid.
func (l *Log) Serve(w http.ResponseWriter, r *http.Request) error {
	form := r.URL.Query()
	q := Query{Account: form.Get("account"), Event: form.Get("event"), Caller: form.Get("caller"), Errors: form.Get("errors") == "true", Next: form.Get("next_token")}
	for name, to := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		if text := form.Get(name); text != "" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return errs.New(errs.Invalid, "%s is no time: %w", name, err)
			}
			*to = at
		}
	}
	if text := form.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return errs.New(errs.Invalid, "limit must be between 1 and %d", maxLimit)
		}
		q.Limit = n
	}
	f, err := l.Find(r.Context(), q)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(f)
}
