package transport

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// Stores is the clients of store-gateways.
type Stores struct {
	*ClientPool[pb.StoreGatewayClient]
	guard guard
}

// NewStores returns the clients of store-gateways.
func NewStores(cfg ClientConfig, deps ClientDeps) (*Stores, error) {
	m := newStoreClientMetrics(deps.Registerer)
	p, err := newClientPool(cfg, deps, "store-gateway", pb.NewStoreGatewayClient, m.duration)
	if err != nil {
		return nil, err
	}
	return &Stores{p, guard{deps.Log, m.panics}}, nil
}

// Register makes calls to addr go to srv, which is in this process, as Clients.Register does.
func (s *Stores) Register(addr string, srv pb.StoreGatewayServer) error {
	return s.register(addr, &localStore{srv, s.guard})
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
func (l *localStore) Stats(ctx context.Context, in *pb.StatsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.StatsResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.StatsResponse]) error { return l.srv.Stats(in, s) }), nil
}

// Series implements storepb.StoreGatewayClient.
func (l *localStore) Series(ctx context.Context, in *pb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[pb.SeriesResponse], error) {
	return openLocal(ctx, l.guard, func(s grpc.ServerStreamingServer[pb.SeriesResponse]) error { return l.srv.Series(in, s) }), nil
}
