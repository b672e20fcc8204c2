package transport

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// Alertmanagers is the clients of alertmanagers.
type Alertmanagers struct {
	*ClientPool[pb.AlertmanagerClient]
	guard guard
}

// NewAlertmanagers returns the clients of alertmanagers.
func NewAlertmanagers(cfg ClientConfig, deps ClientDeps) (*Alertmanagers, error) {
	m := newAlertClientMetrics(deps.Registerer)
	p, err := newClientPool(cfg, deps, "alertmanager", pb.NewAlertmanagerClient, m.duration)
	if err != nil {
		return nil, err
	}
	return &Alertmanagers{p, guard{deps.Log, m.panics}}, nil
}

// Register makes calls to addr go to srv, which is in this process.
func (s *Alertmanagers) Register(addr string, srv pb.AlertmanagerServer) error {
	return s.register(addr, &localAlerts{srv, s.guard})
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
