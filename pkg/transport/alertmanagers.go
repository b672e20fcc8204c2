package transport

import (
	"context"

	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// Alertmanagers is the pool of clients of alertmanagers. It is a service: stopping it closes all.
type Alertmanagers struct {
	services.Service
	pool  *pool[alertClient]
	guard guard
}

// alertClient is a client and what to close when it is not needed any more.
type alertClient struct {
	pb.AlertmanagerClient
	conn *grpc.ClientConn // nil: in this process
}

// Close implements io.Closer.
func (c alertClient) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// NewAlertmanagers returns a pool that connects to an alertmanager when it is called first. Calls
// carry the tenant for which their context acts, and return errors with the kinds and texts of the
// alertmanager.
func NewAlertmanagers(cfg ClientConfig, deps ClientDeps) (*Alertmanagers, error) {
	m := newAlertClientMetrics(deps.Registerer)
	dial, err := dialer(cfg, peers{"alertmanager", deps.Registerer}, newBufferPool(),
		grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(m.duration)))
	if err != nil {
		return nil, err
	}
	p := newPool(func(addr string) (alertClient, error) {
		conn, err := dial(addr)
		if err != nil {
			return alertClient{}, err
		}
		return alertClient{pb.NewAlertmanagerClient(conn), conn}, nil
	})
	return &Alertmanagers{Service: p.service(deps.InRing), pool: p, guard: guard{deps.Log, m.panics}}, nil
}

// For returns the client of the alertmanager at addr.
func (s *Alertmanagers) For(addr string) (pb.AlertmanagerClient, error) {
	c, err := s.pool.get(addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Register makes calls to addr go to srv, which is in this process.
func (s *Alertmanagers) Register(addr string, srv pb.AlertmanagerServer) error {
	return s.pool.register(addr, alertClient{&localAlerts{srv, s.guard}, nil})
}

// localAlerts calls an AlertmanagerServer of this process. It implements
// alertmanagerpb.AlertmanagerClient.
type localAlerts struct {
	srv   pb.AlertmanagerServer
	guard guard
}

// HandleRequest implements alertmanagerpb.AlertmanagerClient.
func (l *localAlerts) HandleRequest(ctx context.Context, in *pb.Request, _ ...grpc.CallOption) (*pb.Response, error) {
	return unaryLocal(ctx, l.guard, l.srv.HandleRequest, in)
}

// UpdateState implements alertmanagerpb.AlertmanagerClient.
func (l *localAlerts) UpdateState(ctx context.Context, in *pb.State, _ ...grpc.CallOption) (*pb.UpdateStateResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.UpdateState, in)
}

// ReadState implements alertmanagerpb.AlertmanagerClient.
func (l *localAlerts) ReadState(ctx context.Context, in *pb.ReadStateRequest, _ ...grpc.CallOption) (*pb.State, error) {
	return unaryLocal(ctx, l.guard, l.srv.ReadState, in)
}

// Claim implements alertmanagerpb.AlertmanagerClient.
func (l *localAlerts) Claim(ctx context.Context, in *pb.ClaimRequest, _ ...grpc.CallOption) (*pb.ClaimResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.Claim, in)
}

// Reload implements alertmanagerpb.AlertmanagerClient.
func (l *localAlerts) Reload(ctx context.Context, in *pb.ReloadRequest, _ ...grpc.CallOption) (*pb.ReloadResponse, error) {
	return unaryLocal(ctx, l.guard, l.srv.Reload, in)
}
