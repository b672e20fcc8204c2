package transport

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	dskittls "github.com/grafana/dskit/crypto/tls"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// ClientConfig is how this process calls ingesters; app mounts it as ingester_client.
type ClientConfig struct {
	TLSEnabled bool
	TLSCert    string
	TLSKey     string
	TLSCA      string
	TLSName    string
	TLS        TLSPolicy
	Cluster    ClusterClient // declared elsewhere, as it is not of ingesters alone
}

// Declare implements config.Declarer.
func (c *ClientConfig) Declare(s *config.Set) {
	s.Bool(&c.TLSEnabled, "tls-enabled", false, "Call other processes with TLS.").Named("ingester.client.tls-enabled")
	s.String(&c.TLSCert, "tls-cert-path", "", "Client certificate. The file is reloaded when it changes.").Named("ingester.client.tls-cert-path")
	s.String(&c.TLSKey, "tls-key-path", "", "Key of the client certificate.").Named("ingester.client.tls-key-path")
	s.String(&c.TLSCA, "tls-ca-path", "", "CA certificates that ingesters' certificates are checked against. Empty: those of the system.").Named("ingester.client.tls-ca-path")
	s.String(&c.TLSName, "tls-server-name", "", "Name expected in ingesters' certificates. Empty: their address.").Named("ingester.client.tls-server-name").Expert()
	s.Mount("", &clientRows{&c.TLS, "ingester.client."})
}

// ClientDeps is what pools of clients need. InRing says whether the instance at an address is in
// the ring; connections to others are closed after five minutes. Nil keeps all. PushTimeout bounds
// the wait for the answer to one frame, and only NewReplicas needs it.
type ClientDeps struct {
	PushTimeout time.Duration
	InRing      func(addr string) bool
	Registerer  prometheus.Registerer
	Log         *slog.Logger
	Memory      *memory.Account // of frames under way; nil: bounded for each ingester alone
}

// The windows of HTTP/2 bound what a peer may send unread on one stream and one connection.
const (
	streamWindowBytes     = 2 << 20
	connectionWindowBytes = 8 << 20
)

// dialer returns how to connect with cfg to an address of the kind of peers that p names.
func dialer(cfg ClientConfig, p peers, pool mem.BufferPool, extra ...grpc.DialOption) (func(addr string) (*grpc.ClientConn, error), error) {
	tls := dskittls.ClientConfig{CertPath: cfg.TLSCert, KeyPath: cfg.TLSKey, CAPath: cfg.TLSCA, ServerName: cfg.TLSName, MinVersion: cfg.TLS.MinVersion, CipherSuites: strings.Join(cfg.TLS.CipherSuites, ",")}
	if err := cfg.TLS.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "TLS of ingester_client: %w", err)
	}
	opts, err := tls.GetGRPCDialOptions(cfg.TLSEnabled)
	if err != nil {
		return nil, errs.New(errs.Invalid, "TLS of ingester_client: %w", err)
	}
	opts = append(opts,
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec(pool)), grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		experimental.WithBufferPool(pool),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connectionWindowBytes),
		grpc.WithReadBufferSize(grpcBufferBytes),
		grpc.WithWriteBufferSize(grpcBufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout,
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	)
	opts = append(opts, extra...)
	if c := newClusterCaller(cfg.Cluster, p.name, "grpc", p.reg); c != nil { // innermost, as it reads statuses
		opts = append(opts, grpc.WithChainUnaryInterceptor(c.unary()), grpc.WithChainStreamInterceptor(c.stream))
	}
	return func(addr string) (*grpc.ClientConn, error) { return grpc.NewClient("passthrough:///"+addr, opts...) }, nil
}

// peers is a kind of processes that this one calls, as metrics name it.
type peers struct {
	name string
	reg  prometheus.Registerer
}

// keepaliveTime is how often a silent connection is probed; servers allow half of it.
const keepaliveTime = 10 * time.Second

// Replicas is the pool of streams to ingesters. It is a service: stopping it closes all.
type Replicas struct {
	services.Service
	pool   *pool[closableReplica]
	shared shared
}

type closableReplica interface {
	frame.Replica
	Close() error
}

// NewReplicas returns a pool that connects to an ingester when the first frame is pushed to it.
// Errors: Invalid (settings).
func NewReplicas(cfg ClientConfig, deps ClientDeps) (*Replicas, error) {
	if deps.PushTimeout <= 0 {
		return nil, errs.New(errs.Invalid, "the push timeout is %s, it must be positive", deps.PushTimeout)
	}
	buffers := newBufferPool()
	dial, err := dialer(cfg, peers{"ingester-streams", deps.Registerer}, buffers, grpc.WithStreamInterceptor(streamClient), grpc.WithUnaryInterceptor(unaryClient))
	if err != nil {
		return nil, err
	}
	s := shared{dial: dial, pool: buffers, encoders: &sync.Pool{New: func() any { return new(encoded) }}, ids: new(Incarnations),
		metrics: newReplicaMetrics(deps.Registerer), log: deps.Log, pushTimeout: deps.PushTimeout, maxBytes: replicaBytes, memory: deps.Memory}
	p := newPool(func(addr string) (closableReplica, error) { return newRemoteReplica(addr, s), nil })
	return &Replicas{Service: p.service(deps.InRing), pool: p, shared: s}, nil
}

// replicaBytes bounds the encoded frames that wait for one ingester; as much as its side takes in.
const replicaBytes = streamBytes

// For returns the replica for the ingester at addr; the same one for every call.
func (r *Replicas) For(addr string) (frame.Replica, error) { return r.pool.get(addr) }

// Register makes frames for addr go to srv, which is in this process, without sockets or
// encoding. It must be called before For asks for addr.
func (r *Replicas) Register(addr string, srv frame.Server) error {
	local := newLocalReplica(srv, r.shared)
	if err := r.pool.register(addr, local); err != nil {
		return errors.Join(err, local.Close())
	}
	return nil
}

// Clients is the clients of ingester queries.
type Clients struct {
	*ClientPool[ingesterpb.IngesterQueryClient]
	guard guard
}

// NewClients returns the clients of ingester queries.
func NewClients(cfg ClientConfig, deps ClientDeps) (*Clients, error) {
	m := newClientMetrics(deps.Registerer)
	p, err := newClientPool(cfg, deps, "ingester", ingesterpb.NewIngesterQueryClient, m.duration)
	if err != nil {
		return nil, err
	}
	return &Clients{p, guard{deps.Log, m.panics}}, nil
}

// Register makes calls to addr go to srv, which is in this process, without sockets or encoding:
// messages pass by pointer, so neither side may change one after it has handed it over. It must be
// called before For asks for addr.
func (c *Clients) Register(addr string, srv ingesterpb.IngesterQueryServer) error {
	return c.register(addr, &localQuery{srv, c.guard})
}
