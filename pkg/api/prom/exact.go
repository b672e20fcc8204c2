package prom

import (
	"net/http"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// exact sends a result whole, for a client that prefers it to JSON.
func (a *API) exact(w http.ResponseWriter, r *http.Request, v parser.Value, ws annotations.Annotations) error {
	_, turn, end := a.b.Turns.Begin(a.b.Prepare(r))
	defer end()
	return a.writers.stream(w, r, work.ExactType, func(out *answer) error {
		out.turn = turn
		return work.Exact(v, ws, r.Form.Get("query"), func(part []byte) {
			out.buf = append(out.buf, part...)
			out.spill()
		})
	})
}
