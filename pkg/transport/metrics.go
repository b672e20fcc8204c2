package transport

import (
	"time"

	"github.com/grafana/dskit/instrument"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// replicaMetrics are of the sending side of frame streams.
type replicaMetrics struct {
	connects      prometheus.Counter
	losses        prometheus.Counter
	refusedSlow   prometheus.Counter
	refusedDown   prometheus.Counter
	timeouts      prometheus.Counter
	late          prometheus.Counter
	inflightBytes prometheus.Gauge
	sentBytes     prometheus.Counter
	panics        prometheus.Counter
}

func newReplicaMetrics(reg prometheus.Registerer) *replicaMetrics {
	f := promauto.With(reg)
	refused := f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_ingester_client_frames_refused_total",
		Help: "Frames that were not sent. slow: too many bytes wait for the ingester; down: it cannot be reached."}, []string{"reason"})
	return &replicaMetrics{
		connects: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_streams_opened_total",
			Help: "Streams opened to ingesters. A rise without deployments means that connections break."}),
		losses: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_streams_lost_total",
			Help: "Streams to ingesters that ended; all frames without an answer failed with them."}),
		refusedSlow: refused.WithLabelValues("slow"),
		refusedDown: refused.WithLabelValues("down"),
		timeouts: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_frame_timeouts_total",
			Help: "Frames without an answer within the push timeout."}),
		late: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_late_results_total",
			Help: "Answers that came after the push timeout and were dropped."}),
		inflightBytes: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_client_inflight_bytes",
			Help: "Encoded bytes of frames that wait for an answer."}),
		sentBytes: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_sent_bytes_total",
			Help: "Encoded bytes sent to ingesters."}),
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_frame_panics_total",
			Help: "Panics while the ingester of this process stored a frame. Each is a bug."}),
	}
}

// writeServerMetrics are of the receiving side of frame streams.
type writeServerMetrics struct {
	streams       prometheus.Gauge
	frames        prometheus.Counter
	receivedBytes prometheus.Counter
	invalid       prometheus.Counter
	panics        prometheus.Counter
}

func newWriteServerMetrics(reg prometheus.Registerer) *writeServerMetrics {
	f := promauto.With(reg)
	return &writeServerMetrics{
		streams: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_push_streams",
			Help: "Streams of frames that are open, one for each distributor."}),
		frames: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_push_frames_total",
			Help: "Frames received from other processes."}),
		receivedBytes: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_push_received_bytes_total",
			Help: "Encoded bytes of frames received from other processes."}),
		invalid: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_push_invalid_frames_total",
			Help: "Frames that could not be decoded. A rise means a faulty peer or one of another version."}),
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_push_panics_total",
			Help: "Panics while a frame was stored. Each is a bug."}),
	}
}

// clientMetrics are of the clients of ingester queries.
type clientMetrics struct {
	duration *prometheus.HistogramVec
	panics   prometheus.Counter
}

func newClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	return &clientMetrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_ingester_client_request_duration_seconds",
			Help: "Time until an ingester answered a query call.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"}),
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_client_panics_total",
			Help: "Panics of query calls within this process. Each is a bug."}),
	}
}

// serverMetrics are of the listeners, beside those of dskit's server.
type serverMetrics struct {
	reg        prometheus.Registerer
	panics     prometheus.Counter
	httpPanics prometheus.Counter
	tlsReloads *prometheus.CounterVec
}

// watchExpiry shows until when the certificate of a listener's files is valid.
func (m *serverMetrics) watchExpiry(listener string, until func() time.Time) {
	promauto.With(m.reg).NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_server_tls_certificate_expiry_timestamp_seconds",
		Help:        "When the certificate expires that the files of a listener hold: http, grpc, gossip, or also, for those beside them. Close to now: nobody renewed it.",
		ConstLabels: prometheus.Labels{"listener": listener}},
		func() float64 { return float64(until().Unix()) })
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	f := promauto.With(reg)
	return &serverMetrics{
		reg: reg,
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_grpc_panics_total",
			Help: "Panics of gRPC handlers. Each is a bug."}),
		httpPanics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_http_panics_total",
			Help: "Panics around handlers of HTTP requests, whose connections were cut. Each is a bug."}),
		tlsReloads: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_server_tls_reloads_total",
			Help: "Attempts to load changed certificate files; with outcome failure the ones before stay in use."}, []string{"outcome"}),
	}
}

func newStoreClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	return &clientMetrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_storegateway_client_request_duration_seconds",
			Help: "Time of calls to store-gateways, until the end of their streams.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"}),
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_storegateway_client_panics_total",
			Help: "Panics while the store-gateway of this process answered. Each is a bug."}),
	}
}

func newCacheClientDuration(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_bucket_store_cluster_cache_request_duration_seconds",
		Help: "Time of calls to other store-gateways for their part of the cluster cache.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
}

func newAlertClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	return &clientMetrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_alertmanager_client_request_duration_seconds",
			Help: "Time of calls to alertmanagers.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"}),
		panics: f.NewCounter(prometheus.CounterOpts{Name: "amphora_alertmanager_client_panics_total",
			Help: "Panics while the alertmanager of this process answered. Each is a bug."}),
	}
}

func newSchedulerClientDuration(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_query_frontend_scheduler_request_duration_seconds",
		Help: "Time of calls of frontends to query-schedulers, waiting included, until the end of their answers.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
}

func newWorkerPanics(reg prometheus.Registerer) prometheus.Counter {
	return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "amphora_querier_worker_panics_total",
		Help: "Panics while a worker did what a query-scheduler gave it. Each is a bug."})
}

func newRulerClientDuration(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_ruler_client_request_duration_seconds",
		Help: "Time of calls to other rulers.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
}

func newDeltaClientDuration(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_distributor_client_request_duration_seconds",
		Help: "Time of calls to other distributors.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
}

func newFrontendClientDuration(reg prometheus.Registerer) *prometheus.HistogramVec {
	return promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_query_frontend_client_request_duration_seconds",
		Help: "Time of calls to other query-frontends, about the queries under way there.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
}
