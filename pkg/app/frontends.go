package app

import (
	"cmp"
	"slices"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// FrontendRingConfig of the ring by which query-frontends find each other, mounted as frontend.ring.
type FrontendRingConfig struct{ Heartbeats members.Heartbeats }

// Declare names the settings.
func (c *FrontendRingConfig) Declare(s *config.Set) {
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent query-frontend is removed from the ring. 0: never.").Expert()
}

// frontendRing is the view of query-frontends of each other.
func (a *App) frontendRing() (*ring.Ring, error) {
	return a.reads.frontendRing.get(func() (*ring.Ring, error) {
		return a.workersRing(frontend.RingName, frontend.RingKey, ring.Config{HeartbeatTimeout: a.cfg.Reads.FrontendRing.Heartbeats.Timeout, ReplicationFactor: 1})
	})
}

// buildFrontend builds the query-frontend with its gRPC service and its place among the others.
func (a *App) buildFrontend() error {
	f, err := a.frontend()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	querypb.RegisterFrontendServer(s.GRPC(), frontend.NewServer(f))
	if a.cfg.alone() {
		return nil
	}
	return a.workersEntry(frontend.RingName, frontend.RingKey, worker{beats: a.cfg.Reads.FrontendRing.Heartbeats, tokens: 1, leave: true})
}

// frontendPeers is the other query-frontends, who run queries, too.
func (a *App) frontendPeers() (frontend.Peers, error) {
	id, err := a.cfg.Ring.ID()
	if err != nil || a.cfg.alone() {
		return frontend.Peers{Self: id}, err
	}
	self, err := a.instanceAddr()
	if err != nil {
		return frontend.Peers{}, err
	}
	r, err := a.frontendRing()
	if err != nil {
		return frontend.Peers{}, err
	}
	clients, err := transport.NewFrontends(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
	if err != nil {
		return frontend.Peers{}, err
	}
	return frontend.Peers{Self: id, Others: func() ([]frontend.Peer, error) { return a.otherFrontends(r, self) }, Client: clients.For}, a.serve("query-frontend-clients", clients)
}

// otherFrontends lists the healthy members of the ring but the one at self.
func (a *App) otherFrontends(r ring.ReadRing, self string) ([]frontend.Peer, error) {
	set, err := r.GetAllHealthy(ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "find the other query-frontends: %w", err)
	}
	var out []frontend.Peer
	for _, i := range set.Instances {
		if i.Addr != self {
			out = append(out, frontend.Peer{ID: i.Id, Addr: i.Addr})
		}
	}
	if len(out) == 0 && a.cfg.Reads.Schedulers.Mode == "dns" && a.cfg.KVStore.Store == inGossip && len(a.cfg.Memberlist.Join) == 0 {
		return nil, errs.New(errs.Unavailable, "memberlist.join_members names no process by which query-frontends could find each other")
	}
	slices.SortFunc(out, func(a, b frontend.Peer) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// mountFrontendRing gives the page of that ring.
func (a *App) mountFrontendRing(d *api.Deps) error {
	if !a.cfg.runs("query-frontend") || a.cfg.alone() {
		return nil
	}
	r, err := a.frontendRing()
	if err != nil {
		return err
	}
	d.FrontendRing = roster{&members.Roster{KV: r.KVClient, Key: frontend.RingKey, Timeout: a.cfg.Reads.FrontendRing.Heartbeats.Timeout}}
	return nil
}
