package transport

import (
	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

// Caches is the pool of clients by which store-gateways reach the parts that others hold of the cache that
// they share. It is a service: stopping it closes all.
type Caches struct {
	services.Service
	pool *pool[cacheClient]
}

// cacheClient is a client and what to close when it is not needed any more.
type cacheClient struct {
	pb.ClusterCacheClient
	conn *grpc.ClientConn
}

// Close implements io.Closer.
func (c cacheClient) Close() error { return c.conn.Close() }

// NewCaches returns a pool that connects to a store-gateway when it is called first. Calls return errors
// with the kinds and texts of the one called.
func NewCaches(cfg ClientConfig, deps ClientDeps) (*Caches, error) {
	dial, err := dialer(cfg, peers{"store-gateway-cache", deps.Registerer}, newBufferPool(),
		grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(newCacheClientDuration(deps.Registerer))))
	if err != nil {
		return nil, err
	}
	p := newPool(func(addr string) (cacheClient, error) {
		conn, err := dial(addr)
		if err != nil {
			return cacheClient{}, err
		}
		return cacheClient{pb.NewClusterCacheClient(conn), conn}, nil
	})
	return &Caches{Service: p.service(deps.InRing), pool: p}, nil
}

// For returns the client of the store-gateway at addr.
func (c *Caches) For(addr string) (pb.ClusterCacheClient, error) {
	client, err := c.pool.get(addr)
	if err != nil {
		return nil, err
	}
	return client, nil
}
