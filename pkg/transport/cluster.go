package transport

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grafana/dskit/clusterutil"
	"github.com/grafana/dskit/grpcutil"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/pkg/telemetry"
)

const (
	// foreignLabels bounds the names of other clusters that have counters of their own, as a caller
	// can make them up; the rest are counted together.
	foreignLabels = 20
	otherLabel    = "__other__"
	// maxLabelBytes is how much of such a name is shown.
	maxLabelBytes = 64
	// maxRefusalBytes bounds the answer of a process that refuses a request.
	maxRefusalBytes = 16 << 10
	// clusterLogEvery is how often a refusal is logged.
	clusterLogEvery = 10 * time.Second
	healthMethods   = "/grpc.health.v1.Health/"
)

// clusterDoor checks the cluster that calls name. Headers, metadata and refusals are those of
// dskit, whose interceptors leave out streams.
type clusterDoor struct {
	cfg     ClusterServer
	labels  []string
	agents  []*regexp.Regexp
	refused *prometheus.CounterVec
	log     *telemetry.Throttle

	mu    sync.Mutex // guards known
	known map[string]struct{}
}

// newClusterDoor returns nil if nothing is checked. refused has the labels that dskit gives it.
func newClusterDoor(cfg ClusterServer, refused *prometheus.CounterVec, log *slog.Logger) (*clusterDoor, error) {
	if !cfg.GRPC.Enabled && !cfg.HTTP.Enabled {
		return nil, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &clusterDoor{cfg: cfg, labels: append([]string{cfg.Label}, cfg.Additional...), known: map[string]struct{}{},
		refused: refused, log: telemetry.NewThrottle(log, clusterLogEvery)}
	for _, text := range cfg.HTTP.UserAgents {
		x, err := regexp.Compile(text)
		if err != nil {
			return nil, err
		}
		d.agents = append(d.agents, x)
	}
	return d, nil
}

// shown is the name of a foreign cluster as metrics and logs have it.
func (d *clusterDoor) shown(label string) string {
	label = strings.ToValidUTF8(label[:min(len(label), maxLabelBytes)], "\uFFFD")
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.known[label]; !ok {
		if len(d.known) == foreignLabels {
			return otherLabel
		}
		d.known[label] = struct{}{}
	}
	return label
}

// check returns why a call is refused, "" if it is not.
func (d *clusterDoor) check(ctx context.Context, label string, err error, soft bool, call [2]string) string {
	var why string
	switch {
	case err == nil && slices.Contains(d.labels, label):
		return ""
	case err == nil:
		label = d.shown(label)
		why = fmt.Sprintf("rejected request with wrong cluster validation label %q - it should be one of %v", label, d.labels)
	default: // none, or several
		label = ""
		why = fmt.Sprintf("rejected request with empty cluster validation label - it should be one of %v", d.labels)
	}
	d.refused.WithLabelValues(call[0], call[1], d.labels[0], label).Inc()
	d.log.Log(ctx, slog.LevelWarn, "call that does not name this cluster", slog.String("protocol", call[0]), slog.String("method", call[1]),
		slog.Any("cluster_validation_labels", d.labels), slog.String("request_cluster_validation_label", label), slog.Bool("soft_validation", soft))
	if soft {
		return ""
	}
	return why
}

func (d *clusterDoor) grpc(ctx context.Context, method string) error {
	if strings.HasPrefix(method, healthMethods) {
		return nil
	}
	label, err := clusterutil.GetClusterFromIncomingContext(ctx)
	if why := d.check(ctx, label, err, d.cfg.GRPC.Soft, [2]string{"grpc", method}); why != "" {
		return grpcutil.Status(codes.FailedPrecondition, why, &grpcutil.ErrorDetails{Cause: grpcutil.WRONG_CLUSTER_VALIDATION_LABEL}).Err()
	}
	return nil
}

func (d *clusterDoor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := d.grpc(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (d *clusterDoor) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := d.grpc(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

// clusterRefusal is the body of an answer that refuses a request.
type clusterRefusal struct {
	Message string `json:"cluster_validation_error_message"`
	Route   string `json:"route"`
}

// http lets through to next what names the cluster, or need not.
func (d *clusterDoor) http(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.excluded(r) {
			next.ServeHTTP(w, r)
			return
		}
		label, err := clusterutil.GetClusterFromRequest(r)
		method := r.Method
		if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}, method) {
			method = "other"
		}
		why := d.check(r.Context(), label, err, d.cfg.HTTP.Soft, [2]string{"http", method})
		if why == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNetworkAuthenticationRequired)
		_ = json.NewEncoder(w).Encode(clusterRefusal{why, r.URL.Path}) // the client is gone if this fails
	})
}

func (d *clusterDoor) excluded(r *http.Request) bool {
	within := func(path string) bool {
		path = "/" + strings.Trim(path, "/")
		rest, ok := strings.CutPrefix(r.URL.Path, path)
		return ok && (rest == "" || rest[0] == '/')
	}
	return slices.ContainsFunc([]string{"metrics", "ready", "debug/pprof"}, within) || slices.ContainsFunc(d.cfg.HTTP.Paths, within) ||
		slices.ContainsFunc(d.agents, func(x *regexp.Regexp) bool { return x.MatchString(r.UserAgent()) })
}

// clusterCaller gives calls the name of the cluster and counts those that are refused for it.
type clusterCaller struct {
	label   string
	refused *prometheus.CounterVec
}

// newClusterCaller is for calls to the kind of peers that client names; nil without a label.
func newClusterCaller(cfg ClusterClient, client, protocol string, reg prometheus.Registerer) *clusterCaller {
	if cfg.Label == "" {
		return nil
	}
	return &clusterCaller{cfg.Label, newClusterRefused(client, protocol, reg)}
}

// answered turns the refusal of a peer into what the caller can go on with: another replica may
// well be of this cluster.
func (c *clusterCaller) answered(method string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // A stream's end is never wrapped.
		return err
	}
	s, ok := grpcutil.ErrorToStatus(err)
	if !ok {
		return err
	}
	for _, d := range s.Details() {
		if x, ok := d.(*grpcutil.ErrorDetails); ok && x.GetCause() == grpcutil.WRONG_CLUSTER_VALIDATION_LABEL {
			c.refused.WithLabelValues(method).Inc()
			return status.Error(codes.Unavailable, "request rejected by the server: "+s.Message())
		}
	}
	return err
}

func (c *clusterCaller) unary() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return c.answered(method, invoke(clusterutil.PutClusterIntoOutgoingContext(ctx, c.label), method, req, reply, cc, opts...))
	}
}

func (c *clusterCaller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := stream(clusterutil.PutClusterIntoOutgoingContext(ctx, c.label), desc, cc, method, opts...)
	if err != nil {
		return nil, c.answered(method, err)
	}
	return &clusterStream{s, c, method}, nil
}

// clusterStream is a stream whose peer may refuse it.
type clusterStream struct {
	grpc.ClientStream
	caller *clusterCaller
	method string
}

func (s *clusterStream) RecvMsg(m any) error {
	return s.caller.answered(s.method, s.ClientStream.RecvMsg(m))
}

// Wrapper returns what gives requests to the kind of peers that client names the name of the cluster, in
// the place of one that they came with. It turns the refusal of a peer into an error.
func (c ClusterClient) Wrapper(client string, reg prometheus.Registerer) func(next http.RoundTripper) http.RoundTripper {
	caller := newClusterCaller(c, client, "http", reg)
	return func(next http.RoundTripper) http.RoundTripper { return &clusterTransport{caller, next} }
}

type clusterTransport struct {
	caller *clusterCaller // nil: there is no name
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *clusterTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.caller == nil && r.Header.Get(clusterutil.ClusterValidationLabelHeader) == "" {
		return t.next.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.Header.Del(clusterutil.ClusterValidationLabelHeader)
	if t.caller == nil {
		return t.next.RoundTrip(r)
	}
	clusterutil.PutClusterIntoHeader(r, t.caller.label)
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusNetworkAuthenticationRequired {
		return resp, err
	}
	defer func() { _ = resp.Body.Close() }()
	var why clusterRefusal
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRefusalBytes)).Decode(&why); err != nil || why.Message == "" {
		why.Message = resp.Status
	}
	t.caller.refused.WithLabelValues(r.Method).Inc()
	return nil, fmt.Errorf("request rejected by the server: %s", why.Message)
}

func newClusterRefused(client, protocol string, reg prometheus.Registerer) *prometheus.CounterVec {
	return promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "amphora_client_invalid_cluster_validation_label_requests_total",
		Help:        "Calls that another process refused because it is of another cluster. A rise means that this process has addresses of that cluster.",
		ConstLabels: prometheus.Labels{"client": client, "protocol": protocol}}, []string{"method"})
}
