package transport

import (
	"context"

	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// Stores is the pool of clients of store-gateways. It is a service: stopping it closes all.
type Stores struct {
	services.Service
	pool  *pool[storeClient]
	guard guard
}

// storeClient is a client and what to close when it is not needed any more.
type storeClient struct {
	pb.StoreGatewayClient
	conn *grpc.ClientConn // nil: in this process
}

// Close implements io.Closer.
func (c storeClient) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// NewStores returns a pool that connects to a store-gateway when it is called first. Calls carry the
// tenants for which their context acts, and return errors with the kinds and texts of the gateway.
func NewStores(cfg ClientConfig, deps ClientDeps) (*Stores, error) {
	m := newStoreClientMetrics(deps.Registerer)
	dial, err := dialer(cfg, peers{"store-gateway", deps.Registerer}, newBufferPool(),
		grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(m.duration)),
		grpc.WithChainStreamInterceptor(streamClient, timedStreams(m.duration)))
	if err != nil {
		return nil, err
	}
	p := newPool(func(addr string) (storeClient, error) {
		conn, err := dial(addr)
		if err != nil {
			return storeClient{}, err
		}
		return storeClient{pb.NewStoreGatewayClient(conn), conn}, nil
	})
	return &Stores{Service: p.service(deps.InRing), pool: p, guard: guard{deps.Log, m.panics}}, nil
}

// For returns the client of the store-gateway at addr.
func (s *Stores) For(addr string) (pb.StoreGatewayClient, error) {
	c, err := s.pool.get(addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Register makes calls to addr go to srv, which is in this process, as Clients.Register does.
func (s *Stores) Register(addr string, srv pb.StoreGatewayServer) error {
	return s.pool.register(addr, storeClient{&localStore{srv, s.guard}, nil})
}

// localStore calls a StoreGatewayServer of this process. It implements storepb.StoreGatewayClient.
type localStore struct {
	srv   pb.StoreGatewayServer
	guard guard
}

// LabelNames implements storepb.StoreGatewayClient.
func (l *localStore) LabelNames(ctx context.Context, in *pb.LabelNamesRequest, _ ...grpc.CallOption) (*pb.LabelNamesResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.LabelNames, in)
}

// LabelValues implements storepb.StoreGatewayClient.
func (l *localStore) LabelValues(ctx context.Context, in *pb.LabelValuesRequest, _ ...grpc.CallOption) (*pb.LabelValuesResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.LabelValues, in)
}

// Stats implements storepb.StoreGatewayClient.
func (l *localStore) Stats(ctx context.Context, in *pb.StatsRequest, _ ...grpc.CallOption) (*pb.StatsResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.Stats, in)
}

// Series implements storepb.StoreGatewayClient.
func (l *localStore) Series(ctx context.Context, in *pb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.SeriesResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.SeriesResponse]) error { return l.srv.Series(in, s) }), nil
}
