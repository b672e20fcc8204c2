// Package ingest owns the HTTP endpoints that receive samples: it negotiates the protocol, reads and
// decompresses a bounded body into pooled memory, hands it to the distributor, and tells the client
// the outcome and when to retry.
package ingest

import (
	"cmp"
	"context"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/influx"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/otlp"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Pusher stores what a request carries. It must not keep req.Body after it returns. Errors have
// the kinds of package errs; Written counts what was stored in spite of one.
type Pusher interface {
	Push(ctx context.Context, id tenant.ID, req *remotewrite.Request) (remotewrite.Written, error)
}

// Deps are what the write path works with.
type Deps struct {
	Pusher     Pusher
	Registerer prometheus.Registerer
	// Limits gives the limits of a tenant. nil: the defaults for all.
	Limits func(tenant.ID) limits.View
	// Peers are all processes that take pushes, this one among them. nil: there is no other.
	Peers Peers
	// Random gives numbers in [0, 1), which spread the retries of many clients.
	Random func() float64
}

// API serves the write path.
type API struct {
	cfg         Config
	pusher      Pusher
	bodies      *inflight
	buffers     *buffers
	metrics     *metrics
	limits      func(tenant.ID) limits.View
	random      func() float64
	translators sync.Pool // *otlp.Translator
	streams     *otlp.Streams
	peers       Peers
	lines       sync.Pool // *influx.Translator
}

// New returns the write path.
func New(cfg Config, deps Deps) *API {
	m := newMetrics(deps.Registerer)
	if cfg.Retry == (RetryConfig{}) {
		cfg.Retry = usualRetry()
	}
	cfg.Protocols.MaxOTLPBytes = cmp.Or(cfg.Protocols.MaxOTLPBytes, defaultBodyBytes)
	cfg.Protocols.MaxInfluxBytes = cmp.Or(cfg.Protocols.MaxInfluxBytes, defaultBodyBytes)
	if deps.Limits == nil {
		deps.Limits = func(tenant.ID) limits.View { return limits.View{} }
	}
	cfg.Protocols.MaxDeltaBytes = cmp.Or(cfg.Protocols.MaxDeltaBytes, defaultDeltaBytes)
	cfg.Protocols.DeltaIdle = cmp.Or(cfg.Protocols.DeltaIdle, defaultDeltaIdle)
	streams := otlp.NewStreams(otlp.StreamsOptions{MaxBytes: int64(cfg.Protocols.MaxDeltaBytes), Idle: cfg.Protocols.DeltaIdle, Now: time.Now, Take: cfg.Memory.Take})
	m.deltas(deps.Registerer, streams)
	return &API{
		cfg:         cfg,
		pusher:      deps.Pusher,
		bodies:      &inflight{most: cfg.inflightBytes(), used: m.inflightBytes, process: cfg.Memory},
		buffers:     newBuffers(),
		metrics:     m,
		limits:      deps.Limits,
		random:      deps.Random,
		streams:     streams,
		peers:       deps.Peers,
		translators: sync.Pool{New: func() any { return otlp.NewTranslator() }},
		lines:       sync.Pool{New: func() any { return influx.NewTranslator() }},
	}
}

// Push answers a Prometheus remote write request, version 1.0 or 2.0.
func (a *API) Push(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	version, err := negotiate(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	written, err := a.push(w, r, version)
	if version == remotewrite.V2 {
		h := w.Header()
		h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(written.Samples))
		h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(written.Histograms))
		h.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(written.Exemplars))
	}
	if err == nil {
		holdBack(w, r, start, written.Delay)
	}
	return err // without one, the server answers 200 and no body
}

func (a *API) push(w http.ResponseWriter, r *http.Request, version remotewrite.Version) (none remotewrite.Written, err error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return none, err
	}
	encoding := r.Header.Get("Content-Encoding")
	if encoding == "" {
		encoding = "snappy" // the only encoding of version 1.0; early senders do not name it
	}
	share := a.bodies.share()
	defer share.release()
	packed := a.first(r, a.cfg.MaxRecvBytes)
	defer func() { a.buffers.give(packed) }()
	if packed, err = a.readBody(w, r, packed, share, a.cfg.MaxRecvBytes); err != nil {
		return none, a.tooLarge(err)
	}
	plain, err := a.unpack(packed, encoding, share, a.cfg.MaxRecvBytes)
	if err != nil {
		return none, a.tooLarge(err)
	}
	defer a.buffers.give(plain)
	a.metrics.compressed.Observe(float64(len(packed)))
	a.metrics.uncompressed.Observe(float64(len(plain)))
	written, err := a.pusher.Push(r.Context(), id, &remotewrite.Request{Version: version, Body: plain,
		SkipLabelNames: a.cfg.SkipLabelNames && asked(r, "X-Mimir-SkipLabelNameValidation"),
		SkipLabelCount: a.cfg.SkipLabelCount && asked(r, "X-Mimir-SkipLabelCountValidation")})
	return written, a.tooLarge(err)
}

// asked says whether r has the header with the value true.
func asked(r *http.Request, header string) bool {
	return strings.EqualFold(r.Header.Get(header), "true")
}

// tooLarge gives a body over the limit the status and the id that senders of remote write know:
// a 413 would be sent again by some of them.
func (a *API) tooLarge(err error) error {
	if err == nil || errs.KindOf(err) != errs.BodyTooLarge {
		return err
	}
	return errs.WithID(errs.Invalid, "distributor-max-write-message-size", "To adjust it, set -distributor.max-recv-msg-size.",
		"the incoming push request has been rejected because its message size is larger than the allowed limit of %d bytes: %w", a.cfg.MaxRecvBytes, err)
}

// negotiate returns the version that a Content-Type names. Everything without a proto parameter
// is version 1.0, because early senders name no type or a wrong one. Errors: Invalid, Unsupported.
func negotiate(contentType string) (remotewrite.Version, error) {
	if contentType == "" || contentType == "application/x-protobuf" {
		return remotewrite.V1, nil
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, errs.New(errs.Invalid, "content type %q: %w", contentType, err)
	}
	switch proto := params["proto"]; proto {
	case "", "prometheus.WriteRequest":
		return remotewrite.V1, nil
	case "io.prometheus.write.v2.Request":
		return remotewrite.V2, nil
	default:
		return 0, errs.New(errs.Unsupported, "content type names the unknown message %q; prometheus.WriteRequest and io.prometheus.write.v2.Request are supported", proto)
	}
}
