package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func (rt *Route) allows(method string) bool {
	for m := range strings.SplitSeq(rt.Methods, ",") {
		if m == method || m == http.MethodGet && method == http.MethodHead {
			return true
		}
	}
	return false
}

// At returns the path of rt under the configured prefixes, and nothing for a row that there is with a prefix
// only. costs is where usage by labels is served.
func (c *Config) At(rt *Route, costs string) string {
	if atPrefix(rt.Path) && c.PrometheusPrefix == "" {
		return "" // that is the index, which not everybody may see
	}
	if rest, ok := strings.CutPrefix(rt.Path, defaultPrefix); ok && (rest == "" || rest[0] == '/') {
		return c.PrometheusPrefix + rest
	}
	if rt.Path == costsPath {
		return costs
	}
	if rest, ok := strings.CutPrefix(rt.Path, alertmanagerPrefix); ok && (rest == "" || rest[0] == '/') {
		return c.AlertmanagerPrefix + rest
	}
	return rt.Path
}

// mount fills the mux. Rows are bound in reverse, so that the index, which is the first, sees
// all others; a path and method that two rows share after the prefix was applied go to the first.
func (a *API) mount() {
	labels := map[string]string{}
	var handlers []Handler
	for _, rt := range slices.Backward(Routes) {
		if !a.has(rt.Service) {
			continue
		}
		h := rt.bind(a)
		if h == nil {
			continue
		}
		label := rt.Label()
		rt.reads = rt.Reads()
		if rt.Path = a.cfg.At(&rt, a.deps.CostsPath); rt.Path == "" {
			continue
		}
		labels[rt.Path] = label
		a.mounted = append([]Route{rt}, a.mounted...)
		handlers = append([]Handler{h}, handlers...)
	}
	byPath := map[string][]int{}
	for i, rt := range a.mounted {
		byPath[rt.Path] = append(byPath[rt.Path], i)
	}
	for path, rows := range byPath {
		a.mux.Handle(path, a.byMethod(rows, labels[path], handlers))
	}
	unknown := Route{Style: Plain}
	if a.deps.Control != nil {
		a.mux.Handle("/workspaces/", a.serve(Route{Style: AWS}, "other", noSuchCall))
	}
	a.mux.Handle("/", a.serve(unknown, "other", notFound))
	if prefix := a.cfg.PrometheusPrefix; a.prom != nil && prefix != "" {
		unknown.Style = JSON
		a.mux.Handle(prefix+"/", a.serve(unknown, "other", notFound))
	}
}

// byMethod serves a path with the first of its rows that has the method of a request.
func (a *API) byMethod(rows []int, label string, handlers []Handler) http.Handler {
	var served []http.Handler
	none := a.mounted[rows[0]]
	for _, i := range rows {
		own := label
		if a.mounted[i].Metric != "" {
			own = a.mounted[i].Metric
		}
		served = append(served, a.serve(a.mounted[i], own, handlers[i]))
		if i != rows[0] {
			none.Methods += "," + a.mounted[i].Methods
		}
	}
	if len(rows) == 1 {
		return served[0]
	}
	refused := a.serve(none, label, handlers[rows[0]])
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, i := range rows {
			if a.mounted[i].allows(r.Method) {
				served[k].ServeHTTP(w, r)
				return
			}
		}
		refused.ServeHTTP(w, r)
	})
}

// noSuchCall answers what looks like a call of the control plane and is none.
func noSuchCall(w http.ResponseWriter, r *http.Request) error {
	text := "there is no operation " + r.Method + " " + r.URL.Path
	if strings.Contains(r.URL.Path, "/anomalydetectors") {
		text = "anomaly detectors do not exist here; alerting rules over avg_over_time and stddev_over_time do what most of them do"
	}
	writeAWSError(w, http.StatusNotFound, "UnknownOperationException", text)
	return nil
}

func notFound(_ http.ResponseWriter, r *http.Request) error {
	return errs.New(errs.NotFound, "there is nothing at %s", r.URL.Path)
}

// serve runs h for rt: count, check the method, the tenant and the right, handle, render an error.
func (a *API) serve(rt Route, label string, h Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		method := knownMethod(r.Method)
		inflight := a.metrics.inflight.WithLabelValues(method, label)
		inflight.Inc()
		start := time.Now()
		w := &countingWriter{ResponseWriter: rw}
		body := &countingBody{ReadCloser: r.Body, length: r.ContentLength}
		if r.Body != nil {
			r.Body = body
		}
		if r.ProtoMajor == 1 {
			w.body = body
		}
		aborted := true
		defer func() {
			inflight.Dec()
			if aborted { // the connection is cut on purpose; the client sees no status
				w.status = statusAborted
			}
			a.observe(r, &rt, w, served{method, label, body.read, time.Since(start)})
		}()
		r, err := a.admit(r, &rt)
		if err == nil {
			err = a.permit(r, &rt)
		}
		if err == nil {
			err = a.hold(w, r, &rt)
		}
		if err == nil {
			err = a.watched(h, w, r, &rt)
		}
		if err != nil {
			a.fail(w, r, &rt, err)
		}
		aborted = false
	})
}

// statusAborted is shown in metrics for an answer cut in the middle.
const statusAborted = 599

// admit checks what a request needs before its handler and returns it with its tenants in the
// context.
func (a *API) admit(r *http.Request, rt *Route) (*http.Request, error) {
	if rt.bind == nil {
		return r, nil // the route of unknown paths
	}
	if !rt.allows(r.Method) {
		return r, errMethod
	}
	r, err := a.identify(r, rt.Tenancy)
	if err != nil {
		return r, err
	}
	if a.deps.Allow != nil {
		if err := a.deps.Allow(r, rt.ActionOf(r.Method)); err != nil {
			return r, err
		}
	}
	if rt.Action == Admin {
		// An operator's browser must not be steered by other sites. GET of a page is harmless, except
		// where it acts, and there a browser says that it did not navigate from here.
		if err := a.origin.Check(r); err != nil {
			return r, errs.New(errs.Denied, "refused: %w", err)
		}
		if rt.allows(http.MethodPost) && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return r, errs.New(errs.Denied, "refused: cross-site request to a call that acts")
		}
	}
	return r, nil
}

// errMethod is compared by identity; it never leaves the package.
var errMethod = errors.New("method not allowed")

// identify returns r with the tenants of its header in the context.
func (a *API) identify(r *http.Request, needs Tenancy) (*http.Request, error) {
	if needs == NoTenant {
		return r, nil
	}
	if !a.cfg.Tenancy.Enabled {
		if _, err := tenant.FromContext(r.Context()); err == nil {
			return r, nil // the gateway of this process found a workspace in the path
		}
		return r.WithContext(tenant.Inject(r.Context(), tenant.ID(a.cfg.Tenancy.NoAuthTenant))), nil
	}
	header := r.Header.Get("X-Scope-OrgID")
	if header == "" {
		return r, errs.New(errs.Unauthenticated, "no org id")
	}
	ids, err := tenant.ParseMany(header)
	if err != nil {
		return r, err
	}
	if len(ids) > 1 && (needs == OneTenant || a.deps.Federation < 1) {
		return r, errs.New(errs.Unprocessable, "multiple tenant IDs present, but this request takes one")
	}
	if most := a.deps.Federation; len(ids) > 1 && len(ids) > most {
		return r, errs.New(errs.Unprocessable, "too many tenants: %d are named, at most %d are allowed", len(ids), most)
	}
	return r.WithContext(tenant.InjectMany(r.Context(), ids)), nil
}

// watched is handle, of which is told for whom it works and, unless that is a write, at what. Credentials may be in
// paths and parameters, so only those are told that are known to be none.
func (a *API) watched(h Handler, w http.ResponseWriter, r *http.Request, rt *Route) error {
	if rt.Tenancy == NoTenant {
		return a.handle(h, w, r, NoTenant)
	}
	if rt.Action == RemoteWrite {
		org, _ := user.ExtractOrgID(r.Context())
		defer a.deps.Activity.Label(org)()
		return a.handle(h, w, r, rt.Tenancy)
	}
	ctx, end := a.deps.Activity.Begin(r.Context(), r.Method+" "+rt.Path, func() string { return activity.Asked(r.URL.Query()) })
	defer end()
	return a.handle(h, w, r.WithContext(ctx), rt.Tenancy)
}

// handle runs h and turns a panic into an error. The abort that a handler asks for goes on to
// the server.
func (a *API) handle(h Handler, w http.ResponseWriter, r *http.Request, needs Tenancy) (err error) {
	if needs != NoTenant {
		if err := a.drain.enter(); err != nil {
			w.Header().Set("Connection", "close")
			return err
		}
		defer a.drain.leave()
	}
	defer func() {
		switch p := recover(); {
		case p == nil:
		case isAbort(p):
			panic(p)
		default:
			a.metrics.panics.Inc()
			a.log.Error("request panicked, answered 500", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errs.New(errs.Internal, "internal error, see the log of the process")
		}
	}()
	return h(w, r)
}

// fail renders err. After an answer has begun it can only be cut.
func (a *API) fail(w *countingWriter, r *http.Request, rt *Route, err error) {
	if w.status != 0 {
		a.log.Warn("answer cut, it had begun when the request failed", "path", r.URL.Path, "err", err)
		w.Flush() // what there is may say why
		panic(http.ErrAbortHandler)
	}
	if errors.Is(err, errMethod) {
		w.Header().Set("Allow", strings.ReplaceAll(rt.Methods, ",", ", "))
		if rt.Style == AWS {
			writeAWSError(w, http.StatusMethodNotAllowed, "UnknownOperationException", "method not allowed")
			return
		}
		plain(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	kind := errs.KindOf(err)
	if kind == errs.Internal {
		a.log.Error("request failed", append([]any{"path", r.URL.Path, "err", err}, a.source(r)...)...)
	}
	if kind == errs.Unavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds)) // the write path says it better
	}
	switch {
	case rt.Style == Write:
		a.ingest.WriteError(w, r, err)
	case rt.Style == OTLP:
		a.ingest.WriteOTLPError(w, r, err)
	case rt.Style == GRPC:
		w.status = a.ingest.WriteGRPCError(w, r, err)
	case rt.Style == AWS:
		writeAWSError(w, kind.HTTPStatus(), awsCode(kind), err.Error())
	case rt.Style == JSON && kind != errs.Unauthenticated:
		prom.WriteError(w, err)
	default:
		plain(w, kind.HTTPStatus(), err.Error())
	}
}

// retryAfterSeconds is when a read that could not be answered is worth another try.
const retryAfterSeconds = 5

func plain(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client is gone if this fails
}

// served is what is known of a request when it ends.
type served struct {
	method, label string // as in metrics
	read          int64  // bytes of the body
	took          time.Duration
}

// observe records the end of a request.
func (a *API) observe(r *http.Request, rt *Route, w *countingWriter, s served) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	a.metrics.observe(r.Context(), s.method, s.label, status, s.took)
	a.metrics.received.WithLabelValues(s.method, s.label).Observe(float64(s.read))
	a.metrics.sent.WithLabelValues(s.method, s.label).Observe(float64(w.written))

	level, text := slog.LevelDebug, "request served"
	if slow := a.cfg.SlowRequest; slow > 0 && s.took > slow && rt.Action != Admin {
		level, text = slog.LevelWarn, "request was slow"
	}
	ctx := context.WithoutCancel(r.Context())
	if a.log.Enabled(ctx, level) {
		facts := append([]any{"method", r.Method, "route", s.label, "path", r.URL.Path, "tenant", r.Header.Get("X-Scope-OrgID"),
			"status", status, "took", s.took, "received_bytes", s.read, "sent_bytes", w.written}, a.source(r)...)
		a.log.Log(ctx, level, text, facts...)
	}
}

// source is where r comes from, as attributes of a line of the log.
func (a *API) source(r *http.Request) []any {
	if a.deps.Source == nil {
		return nil
	}
	if from := a.deps.Source(r.Context()); from != "" {
		return []any{"source_ips", from}
	}
	return nil
}

// knownMethod keeps made-up methods out of the labels.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// isAbort says whether a panic is the wish to cut the connection.
func isAbort(p any) bool {
	err, ok := p.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}
