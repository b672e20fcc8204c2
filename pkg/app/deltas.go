package app

import (
	"context"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/api/ingest"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// deltaPeers are the distributors as those of them see each other who add up series.
type deltaPeers struct {
	*members.Owners
	client  func(addr string) (deltapb.DeltasClient, error)
	timeout time.Duration
}

// Division is part of ingest.Peers.
func (p *deltaPeers) Division() (func(hash uint64) (addr string, self bool, epoch int64), error) {
	d, err := p.Owners.Division(time.Now())
	if err != nil {
		return nil, err
	}
	return func(hash uint64) (string, bool, int64) {
		o := d.Of(hash)
		return o.Addr, o.Self, o.Epoch
	}, nil
}

// Add is part of ingest.Peers.
func (p *deltaPeers) Add(ctx context.Context, addr string, req *deltapb.AddRequest) (*deltapb.AddResponse, error) {
	c, err := p.client(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return c.Add(ctx, req)
}

// deltaPeers are the other distributors, which this one hands points to.
func (a *App) deltaPeers() (ingest.Peers, error) {
	ring, err := a.distributorRing()
	if err != nil {
		return nil, err
	}
	clients, err := transport.NewDeltas(a.cfg.Clients, transport.ClientDeps{InRing: ring.has, Registerer: a.reg, Log: a.log})
	if err != nil {
		return nil, err
	}
	if err := a.serve("distributor-ring-watch", services.NewBasicService(nil, ring.watch, nil)); err != nil {
		return nil, err
	}
	// The other one waits for ingesters, too.
	return &deltaPeers{ring.owners, clients.For, 2 * a.cfg.Distributor.RemoteTimeout}, a.serve("distributor-clients", clients)
}
