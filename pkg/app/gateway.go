package app

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/audit"
	"github.com/amphora-metrics/amphora/pkg/certs"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/gateway"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// defaultMaxBody bounds signed bodies where no distributor in the process says how large a push may be.
const defaultMaxBody = 100 << 20

// CallersConfig is the settings of everything about who calls.
type CallersConfig struct {
	Gateway     gateway.Config
	Identity    identity.Config
	Audit       audit.Config
	Upstreams   gateway.UpstreamConfig
	UpstreamTLS transport.UpstreamTLS
	ACME        certs.Config
}

// Declare implements config.Declarer.
func (c *CallersConfig) Declare(s *config.Set) {
	s.Mount("auth", &c.Gateway)
	s.Mount("auth", &c.Identity)
	s.Mount("audit", &c.Audit)
	s.Mount("gateway", &c.Upstreams)
	s.Mount("gateway", &c.UpstreamTLS)
	s.Mount("server.acme", &c.ACME)
}

// callerParts are built when they are first asked for.
type callerParts struct {
	identities part[*identity.Identities]
	gateway    part[*gateway.Gateway]
	audit      part[*audit.Log]
}

// identities are who may call.
func (a *App) identities() (*identity.Identities, error) {
	return a.p.callers.identities.get(func() (*identity.Identities, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		x, err := identity.New(context.Background(), a.cfg.Callers.Identity, identity.Deps{Log: a.log, Reg: a.reg, Store: docs, Operator: a.cfg.Callers.Gateway.OperatorAccount})
		if err != nil {
			return nil, err
		}
		return x, a.serve("identities", x)
	})
}

// gateway is the door for clients.
func (a *App) gateway() (*gateway.Gateway, error) {
	return a.p.callers.gateway.get(func() (*gateway.Gateway, error) {
		d := gateway.Deps{
			Log: a.log, Reg: a.reg, Routes: a.gatewayRoutes(), Prefix: a.cfg.API.PrometheusPrefix,
			Bodies: a.memory.Account(memory.Bodies), MaxBodyBytes: defaultMaxBody,
		}
		var err error
		if d.Upstreams, err = a.upstreams(); err != nil {
			return nil, err
		}
		if !a.cfg.API.Tenancy.Enabled {
			d.NoTenancy = a.cfg.API.Tenancy.NoAuthTenant
		}
		if d.Patterns, err = a.patterns(d.Upstreams); err != nil {
			return nil, err
		}
		if a.cfg.runs("distributor") {
			dist, err := a.distributor()
			if err != nil {
				return nil, err
			}
			d.MaxBodyBytes = int64(dist.MaxRecvMsgBytes())
		}
		if d.Workspaces, err = a.workspaces(); err != nil {
			return nil, err
		}
		if a.cfg.Callers.Gateway.Enabled {
			x, err := a.identities()
			if err != nil {
				return nil, err
			}
			d.Identities = x
			l, err := a.auditLog()
			if err != nil {
				return nil, err
			}
			if l != nil {
				d.Audit, d.AuditData = l, a.cfg.Callers.Audit.Data
			}
		}
		return gateway.New(a.cfg.Callers.Gateway, d)
	})
}

// auditLog is nil if calls are not recorded.
func (a *App) auditLog() (*audit.Log, error) {
	if !a.cfg.Callers.Audit.Enabled || !a.cfg.Callers.Gateway.Enabled {
		return nil, nil
	}
	return a.p.callers.audit.get(func() (*audit.Log, error) {
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		x, err := a.identities()
		if err != nil {
			return nil, err
		}
		l, err := audit.New(a.cfg.Callers.Audit, audit.Deps{Log: a.log, Reg: a.reg, Bucket: b, Sign: x.SignAudit, Verify: x.VerifyAudit})
		if err != nil {
			return nil, err
		}
		return l, a.serve("audit", l)
	})
}

// mountIdentities adds the administration of callers and the record of calls.
func (a *App) mountIdentities(d *api.Deps) error {
	if !a.cfg.hasGateway() || !a.cfg.Callers.Gateway.Enabled {
		return nil
	}
	x, err := a.identities()
	if err != nil {
		return err
	}
	d.Callers.Identities = x.Admin
	l, err := a.auditLog()
	if l != nil {
		d.Callers.Audit = l.Serve
	}
	return err
}

// hasGateway says whether a gateway stands before what this process serves.
func (c *Config) hasGateway() bool {
	return slices.Contains(c.Target, gatewayTarget) || slices.Contains(c.Target, "all")
}

// gatewayTarget stands for no part that is built: the gateway is made when the API is mounted.
const gatewayTarget = "gateway"

// door returns what stands before the handlers of this process: the gateway, if it has one.
func (a *App) door() (func(http.Handler) http.Handler, error) {
	if !a.cfg.hasGateway() {
		return func(h http.Handler) http.Handler { return h }, nil
	}
	g, err := a.gateway()
	if err != nil {
		return nil, err
	}
	return g.Before, nil
}

// gatewayRoutes is the table of routes as the gateway sees it.
func (a *App) gatewayRoutes() []gateway.Route {
	styles := map[api.Style]gateway.Style{api.JSON: gateway.Prom, api.GRPC: gateway.GRPC, api.AWS: gateway.AWS}
	tenants := map[api.Tenancy]int{api.OneTenant: 1, api.Tenants: 2}
	out := make([]gateway.Route, 0, len(api.Routes))
	for i := range api.Routes {
		rt := &api.Routes[i]
		path := a.cfg.API.At(rt, a.cfg.Costs.Path)
		if path == "" {
			continue // not with these prefixes
		}
		for method := range strings.SplitSeq(rt.Methods, ",") {
			out = append(out, gateway.Route{
				Methods: method, Path: path, Action: string(rt.ActionOf(method)),
				Service: string(rt.Service), Tenants: tenants[rt.Tenancy], Style: styles[rt.Style],
				Selectable: rt.Reads() != prom.Unselected,
			})
		}
	}
	return out
}
