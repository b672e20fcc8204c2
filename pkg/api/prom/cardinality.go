package prom

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Stat is a name with a number, as Prometheus has it.
type Stat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Cardinality is what a tenant's series consist of, in the shape of Prometheus's status of its TSDB.
type Cardinality struct {
	Head struct {
		Series     uint64 `json:"numSeries"`
		LabelPairs uint64 `json:"numLabelPairs"`
		Chunks     uint64 `json:"chunkCount"`
		MinTime    int64  `json:"minTime"` // milliseconds
		MaxTime    int64  `json:"maxTime"`
	} `json:"headStats"`
	SeriesByMetric []Stat `json:"seriesCountByMetricName"`
	ValuesByLabel  []Stat `json:"labelValueCountByLabelName"`
	BytesByLabel   []Stat `json:"memoryInBytesByLabelName"`
	SeriesByPair   []Stat `json:"seriesCountByLabelValuePair"`
}

// History knows the cardinality of all that a tenant has stored.
type History interface {
	// History returns at most limit entries of each list, the largest first.
	History(ctx context.Context, id tenant.ID, limit int) (Cardinality, error)
}

// maxStats bounds the lists of one answer.
const maxStats = 10_000

// StatusTSDB answers with the cardinality of the tenant.
func StatusTSDB(h History) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		if err := parseForm(w, r); err != nil {
			return err
		}
		limit := 10
		if s := r.Form.Get("limit"); s != "" {
			if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxStats {
				return badParam("limit", errs.New(errs.Invalid, "it must be a number from 1 to %d", maxStats))
			}
		}
		c, err := h.History(r.Context(), id, limit)
		if err != nil {
			return err
		}
		b, err := json.Marshal(struct {
			Status string      `json:"status"`
			Data   Cardinality `json:"data"`
		}{"success", c})
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // of an error of the connection there is nobody left to tell
		return nil
	}
}
