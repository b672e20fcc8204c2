package transport

import (
	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// ClientPool is the clients C of one gRPC service of other processes, by the addresses of these. It
// connects to a process when that is called first. Calls carry the tenants for which their context acts,
// and return errors with the kinds and texts of the process. It is a service: stopping it closes all.
type ClientPool[C any] struct {
	services.Service
	pool *pool[client[C]]
}

// client is a client and what to close when it is not needed any more.
type client[C any] struct {
	calls C
	conn  *grpc.ClientConn // nil: in this process
}

// Close implements io.Closer.
func (c client[C]) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// clientsOf returns a pool of what calls makes of connections to the processes that to names.
func clientsOf[C any](cfg ClientConfig, to peers, calls func(grpc.ClientConnInterface) C, extra ...grpc.DialOption) (*pool[client[C]], error) {
	dial, err := dialer(cfg, to, newBufferPool(), extra...)
	if err != nil {
		return nil, err
	}
	return newPool(func(addr string) (client[C], error) {
		conn, err := dial(addr)
		if err != nil {
			return client[C]{}, err
		}
		return client[C]{calls(conn), conn}, nil
	}), nil
}

// newClientPool returns a pool whose calls are measured by duration.
func newClientPool[C any](cfg ClientConfig, deps ClientDeps, name string, calls func(grpc.ClientConnInterface) C, duration *prometheus.HistogramVec) (*ClientPool[C], error) {
	p, err := clientsOf(cfg, peers{name, deps.Registerer}, calls,
		grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(duration)),
		grpc.WithChainStreamInterceptor(streamClient, timedStreams(duration)))
	if err != nil {
		return nil, err
	}
	return &ClientPool[C]{Service: p.service(deps.InRing), pool: p}, nil
}

// For returns the client of the process at addr.
func (p *ClientPool[C]) For(addr string) (C, error) {
	c, err := p.pool.get(addr)
	return c.calls, err
}

// register makes calls to addr go to c, which is in this process.
func (p *ClientPool[C]) register(addr string, c C) error {
	return p.pool.register(addr, client[C]{calls: c})
}

// NewRulers returns the clients of rulers.
func NewRulers(cfg ClientConfig, deps ClientDeps) (*ClientPool[rulerpb.RulerClient], error) {
	return newClientPool(cfg, deps, "ruler", rulerpb.NewRulerClient, newRulerClientDuration(deps.Registerer))
}

// NewDeltas returns the clients by which distributors reach those that add up series.
func NewDeltas(cfg ClientConfig, deps ClientDeps) (*ClientPool[deltapb.DeltasClient], error) {
	return newClientPool(cfg, deps, "distributor", deltapb.NewDeltasClient, newDeltaClientDuration(deps.Registerer))
}

// NewFrontends returns the clients by which query-frontends ask each other what is under way.
func NewFrontends(cfg ClientConfig, deps ClientDeps) (*ClientPool[querypb.FrontendClient], error) {
	return newClientPool(cfg, deps, "query-frontend", querypb.NewFrontendClient, newFrontendClientDuration(deps.Registerer))
}

// NewCaches returns the clients by which store-gateways reach the parts that others hold of the cache
// that they share.
func NewCaches(cfg ClientConfig, deps ClientDeps) (*ClientPool[cachepb.ClusterCacheClient], error) {
	return newClientPool(cfg, deps, "store-gateway-cache", cachepb.NewClusterCacheClient, newCacheClientDuration(deps.Registerer))
}
