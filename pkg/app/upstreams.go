package app

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/gateway"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/transport"
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
	calls, err := transport.NewCallers(a.cfg.Callers.UpstreamTLS.Fill(a.cfg.Clients), transport.CallersDeps{Name: "gateway-upstreams", Registerer: a.reg, Log: a.log})
	if err != nil {
		return nil, errs.New(errs.Invalid, "TLS of gateway.upstreams: %w", err)
	}
	u, err := gateway.NewUpstreams(cfg, gateway.UpstreamDeps{Log: a.log, Reg: a.reg, Dial: calls.Dialer,
		Wrap: a.cfg.Clients.Cluster.Wrapper("gateway-upstreams", a.reg), Members: func(ctx context.Context, name string) ([]string, error) {
			return healthyHosts(ctx, rosters[name])
		}})
	if err != nil {
		return nil, err
	}
	return u, a.serve("upstreams", u)
}

// inner sends requests of a kind to other processes, with the certificates of calls between processes if these use TLS.
func (a *App) inner(name string) (http.RoundTripper, error) {
	if !a.cfg.Clients.TLSEnabled {
		return http.DefaultTransport, nil
	}
	calls, err := transport.NewCallers(a.cfg.Clients, transport.CallersDeps{Name: name, Registerer: a.reg, Log: a.log})
	if err != nil {
		return nil, errs.New(errs.Invalid, "TLS of ingester_client: %w", err)
	}
	return calls.Transport(), nil
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
