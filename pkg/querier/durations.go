package querier

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/instrument"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// NewDurations registers how long work of frontends takes, for Executor.Durations.
func NewDurations(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "amphora_querier_request_duration_seconds",
		Help:    "Time of what frontends had this querier do, without the time that it waited in a queue. One query of a client may be many: parts of its time, and shards.",
		Buckets: instrument.DefBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, []string{"method", "route", "status_code", "ws"})
}

// timing is what is learnt of one piece of work while it is done.
type timing struct {
	method, route string
	status        int // of a request; 0: nothing was written
}

// timingOf begins with what a query is; a request's route is known once it is served.
func timingOf(w *work.Work) *timing {
	switch {
	case w.Query == nil:
		return &timing{method: w.Request.Method, route: "other"}
	case w.Query.Step == 0:
		return &timing{method: http.MethodPost, route: "prometheus_api_v1_query"}
	}
	return &timing{method: http.MethodPost, route: "prometheus_api_v1_query_range"}
}

// served learns the route of a request from the pattern that it matched, as the API names its routes.
func (t *timing) served(pattern string) {
	if name := strings.Trim(pattern, "/"); name != "" {
		t.route = strings.NewReplacer("/", "_", "{", "", "}", "").Replace(name)
	}
}

// code is the status that a client would see.
func (t *timing) code(err error) string {
	switch {
	case err != nil:
		return strconv.Itoa(errs.HTTPStatus(err))
	case t.status == 0:
		return "200"
	}
	return strconv.Itoa(t.status)
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	t *timing
}

// WriteHeader implements http.ResponseWriter.
func (w statusWriter) WriteHeader(status int) {
	if w.t.status == 0 {
		w.t.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush passes on what is written so far, if that can be done.
func (w statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
