package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/gorilla/mux"
	"github.com/grafana/dskit/server"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
)

const (
	// readHeaderTimeout bounds how long a client that sends nothing keeps a connection.
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// maxHeaderBytes has room for a query in the URL and for signed and token headers.
	maxHeaderBytes = 256 << 10
	// grpcStreams bounds the calls under way on one connection between two processes.
	grpcStreams = 10_000
	// grpcWorkers is how many calls find a goroutine whose stack has grown already. Others start one of their own.
	grpcWorkers = 64
)

// ServerDeps is what a Server needs beside its settings.
type ServerDeps struct {
	Registerer prometheus.Registerer
	Gatherer   prometheus.Gatherer
	Log        *slog.Logger
	// Proxies are networks of those who are believed when they say in headers for whom they ask.
	Proxies []string
	// Activity is told of the queries under way. nil: nobody is.
	Activity *activity.Tracker
	// Issuer has certificates for the HTTP listeners beside those of files. Nil: there are files only.
	Issuer Issuer
}

// Server is the HTTP and gRPC listeners of a process, on dskit's server. It is a service: it
// serves while it runs, and stopping it lets requests under way end within the shutdown timeout.
// Its addresses are bound from NewServer on; register gRPC services and the HTTP handler before
// it starts.
type Server struct {
	services.Service
	inner   *server.Server
	metrics *server.Metrics
	own     *serverMetrics
	also    []also
	cfg     Config
	cluster *clusterDoor // nil: nobody says which cluster a call is for
	sources *sources     // nil: nobody wants to know who asks
	proxied proxied      // nil: nobody connects for others
	issuer  Issuer       // nil: certificates are of files
	log     *slog.Logger
	stop    chan struct{} // closed to end inner.Run

	mu      sync.Mutex // guards drains
	drains  []func(context.Context) error
	closing sync.Once
}

// NewServer binds both addresses. The process serves one handler, which must do its own logging,
// limits and instrumentation. Whether the addresses may be reached is for CheckExposure to say.
func NewServer(cfg Config, deps ServerDeps) (*Server, error) {
	m := newServerMetrics(deps.Registerer)
	httpTLS, err := newTLS(secured{"http", cfg.HTTPTLS, cfg.TLS, deps.Issuer, []string{"h2", "http/1.1"}, cfg.HTTPProbes}, m, deps.Log)
	if err != nil {
		return nil, errs.New(errs.Invalid, "server.http_tls_config: %w", err)
	}
	grpcTLS, err := newTLS(secured{"grpc", cfg.GRPCTLS, cfg.TLS, nil, []string{"h2"}, false}, m, deps.Log)
	if err != nil {
		return nil, errs.New(errs.Invalid, "server.grpc_tls_config: %w", err)
	}
	from, err := newProxied(&cfg)
	if err != nil {
		return nil, err
	}
	asks, err := newSources(&cfg.Sources, deps.Proxies)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, sources: asks, proxied: from, own: m, issuer: deps.Issuer, log: deps.Log, stop: make(chan struct{})}
	inner := server.Config{
		MetricsNamespace:                      "amphora",
		ReportGRPCCodesInInstrumentationLabel: true,
		HTTPListenAddress:                     cfg.HTTPAddress,
		HTTPListenPort:                        cfg.HTTPPort,
		HTTPConnLimit:                         cfg.HTTPConnLimit,
		ProxyProtocolEnabled:                  cfg.ProxyProtocol,
		HTTPServerReadTimeout:                 cfg.ReadTimeout,
		HTTPServerReadHeaderTimeout:           readHeaderTimeout,
		HTTPServerWriteTimeout:                cfg.WriteTimeout,
		HTTPServerIdleTimeout:                 idleTimeout,
		DoNotAddDefaultHTTPMiddleware:         true,
		// The router stays empty because dskit also offers it over gRPC, past the handler's
		// authentication.
		Router:                             mux.NewRouter(),
		GRPCListenAddress:                  cfg.GRPCAddress,
		GRPCListenPort:                     cfg.GRPCPort,
		GRPCServerMaxRecvMsgSize:           maxMessageBytes,
		GRPCServerMaxSendMsgSize:           maxMessageBytes,
		GRPCServerMaxConcurrentStreams:     grpcStreams,
		GRPCServerTime:                     keepaliveTime,
		GRPCServerTimeout:                  5 * time.Second,
		GRPCServerMinTimeBetweenPings:      keepaliveTime / 2,
		GRPCServerPingWithoutStreamAllowed: true,
		GRPCServerNumWorkers:               grpcWorkers,
		GRPCServerReadBufferSize:           grpcBufferBytes,
		GRPCServerWriteBufferSize:          grpcBufferBytes,
		GRPCOptions:                        serverOptions(),
		GRPCMiddleware:                     []grpc.UnaryServerInterceptor{guard{deps.Log, m.panics}.unaryServer, watch{deps.Activity}.unaryServer},
		GRPCStreamMiddleware:               []grpc.StreamServerInterceptor{guard{deps.Log, m.panics}.streamServer, watch{deps.Activity}.streamServer},
		Log:                                gokitlog.NewNopLogger(), // It would log a line for each failed call.
		SignalHandler:                      stopSignal(s.stop),
		Registerer:                         deps.Registerer,
		Gatherer:                           deps.Gatherer,
		Throughput:                         server.Throughput{Unit: "bytes"},
		ServerGracefulShutdownTimeout:      cfg.ShutdownTimeout,
	}
	if grpcTLS != nil {
		inner.GRPCOptions = append(inner.GRPCOptions, grpc.Creds(credentials.NewTLS(grpcTLS)))
	}
	s.metrics = server.NewServerMetrics(inner)
	if err := s.checkClusters(&inner); err != nil {
		return nil, errs.New(errs.Invalid, "server.cluster_validation: %w", err)
	}
	if s.inner, err = server.NewWithMetrics(inner, s.metrics); err != nil {
		return nil, errs.New(errs.Unavailable, "listen for HTTP on %s:%d and gRPC on %s:%d: %w", cfg.HTTPAddress, cfg.HTTPPort, cfg.GRPCAddress, cfg.GRPCPort, err)
	}
	h := s.inner.HTTPServer
	h.TLSConfig = httpTLS
	harden(h, deps.Log)
	if from != nil {
		h.ConnContext = from.peer
	}
	s.Service = services.NewBasicService(nil, s.run, s.stopping)
	return s, nil
}

// checkClusters puts the door first that lets calls of this cluster in.
func (s *Server) checkClusters(inner *server.Config) (err error) {
	if s.cluster, err = newClusterDoor(s.cfg.Cluster, s.metrics.InvalidClusterRequests, s.log); err != nil || s.cluster == nil {
		return err
	}
	if s.cfg.Cluster.GRPC.Enabled {
		inner.GRPCMiddleware = append([]grpc.UnaryServerInterceptor{s.cluster.unary}, inner.GRPCMiddleware...)
		inner.GRPCStreamMiddleware = append([]grpc.StreamServerInterceptor{s.cluster.stream}, inner.GRPCStreamMiddleware...)
	}
	return nil
}

// grpcBufferBytes is how much gRPC reads from and writes to a socket at once.
const grpcBufferBytes = 64 << 10

// serverOptions are what a gRPC server of ours needs: the codec, its buffers and windows.
func serverOptions() []grpc.ServerOption {
	pool := newBufferPool()
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(pool)),
		experimental.BufferPool(pool),
		grpc.InitialWindowSize(streamWindowBytes),
		grpc.InitialConnWindowSize(connectionWindowBytes),
	}
}

// stopSignal ends dskit's Run when it is closed, in place of the process's signals.
type stopSignal chan struct{}

// Loop implements server.SignalHandler.
func (s stopSignal) Loop() { <-s }

// Stop implements server.SignalHandler; the Server closes the channel itself.
func (s stopSignal) Stop() {}

// GRPC is where services are registered.
func (s *Server) GRPC() grpc.ServiceRegistrar { return s.inner.GRPC }

// Handle sets the handler of all HTTP requests.
func (s *Server) Handle(h http.Handler) {
	if s.cluster != nil && s.cfg.Cluster.HTTP.Enabled {
		h = s.cluster.http(h)
	}
	h = s.sources.note(timely(s.cfg.WriteTimeout, h))
	if s.proxied != nil {
		h = s.proxied.honest(h)
	}
	if s.issuer != nil {
		h = noChallenges(h)
	}
	if s.cfg.HTTPProbes {
		h = noStrangers(h)
	}
	s.inner.HTTPServer.Handler = guard{s.log, s.own.httpPanics}.http(h)
}

// OnDrain adds what must happen when the server stops before calls under way can be waited for:
// long-lived streams must be ended. ctx ends with the shutdown timeout.
func (s *Server) OnDrain(f func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drains = append(s.drains, f)
}

// RequestDuration is amphora_request_duration_seconds (method, route, status_code, ws), in which
// gRPC calls are observed already and HTTP requests are for the handler to observe.
func (s *Server) RequestDuration() *prometheus.HistogramVec { return s.metrics.RequestDuration }

// HTTPAddr is where HTTP listens.
func (s *Server) HTTPAddr() net.Addr { return s.inner.HTTPListenAddr() }

// GRPCAddr is where gRPC listens.
func (s *Server) GRPCAddr() net.Addr { return s.inner.GRPCListenAddr() }

func (s *Server) run(ctx context.Context) error {
	s.log.Info("server is listening", "http", s.HTTPAddr().String(), "grpc", s.GRPCAddr().String())
	failed := make(chan error, 1+len(s.also))
	go func() { failed <- s.inner.Run() }()
	for _, l := range s.also {
		go func() { failed <- l.serve() }()
	}
	select {
	case err := <-failed:
		if err == nil {
			err = errs.New(errs.Internal, "a listener ended")
		}
		return err
	case <-ctx.Done():
		return nil
	}
}

// stopping lets requests end within the shutdown timeout and cuts those that do not. dskit's own
// Shutdown would wait for gRPC without bound.
func (s *Server) stopping(error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	s.mu.Lock()
	drains := s.drains
	s.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		if s.inner.HTTPServer.Shutdown(ctx) != nil {
			_ = s.inner.HTTPServer.Close()
		}
	})
	for _, l := range s.also {
		wg.Go(func() { l.stop(ctx) })
	}
	problems := make([]error, len(drains))
	for i, drain := range drains {
		wg.Go(func() { problems[i] = drain(ctx) })
	}
	graceful := make(chan struct{})
	wg.Go(func() {
		s.inner.GRPC.GracefulStop()
		close(graceful)
	})
	select {
	case <-graceful:
	case <-ctx.Done():
		s.log.Warn("calls did not end within the shutdown timeout and are cut", "timeout", s.cfg.ShutdownTimeout)
		s.inner.GRPC.Stop()
	}
	wg.Wait()
	s.closing.Do(func() { close(s.stop) })
	return errors.Join(problems...)
}
