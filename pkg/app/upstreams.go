package app

import (
	"context"
	"net"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/gateway"
	"github.com/amphora-metrics/amphora/pkg/members"
)

// upstreams are the services that other processes run; nil: none were named.
func (a *App) upstreams() (*gateway.Upstreams, error) {
	cfg := a.cfg.Callers.Upstreams
	if len(cfg.Addresses) == 0 {
		return nil, nil
	}
	rosters := map[string]*members.Roster{}
	for _, name := range cfg.Rings() {
		client, err := a.workersKV("upstreams-" + name)
		if err != nil {
			return nil, err
		}
		rosters[name] = &members.Roster{KV: client, Key: name, Timeout: a.cfg.Ring.Heartbeats.Timeout}
	}
	u, err := gateway.NewUpstreams(cfg, gateway.UpstreamDeps{Log: a.log, Reg: a.reg, Wrap: a.cfg.Clients.Cluster.Wrapper("gateway-upstreams", a.reg), Members: func(ctx context.Context, name string) ([]string, error) {
		return healthyHosts(ctx, rosters[name])
	}})
	if err != nil {
		return nil, err
	}
	return u, a.serve("upstreams", u)
}

// healthyHosts are the addresses of members that beat and serve, without the ports of gRPC.
func healthyHosts(ctx context.Context, r *members.Roster) ([]string, error) {
	all, err := r.Members(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if time.Since(time.Unix(m.Entry.Timestamp, 0)) > r.Timeout || m.Entry.State != ring.ACTIVE {
			continue
		}
		host, _, err := net.SplitHostPort(m.Entry.Addr)
		if err != nil {
			return nil, errs.New(errs.Internal, "member %s of a ring has the address %q: %w", m.ID, m.Entry.Addr, err)
		}
		out = append(out, host)
	}
	return out, nil
}
