package app

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/gateway"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// mostStatsBytes bounds what a distributor may answer about all tenants.
const mostStatsBytes = 256 << 20

// patterns finds the tenants that a regular expression matches; nil: that is off. Tenants are those with recent
// samples, which ingesters know, with blocks, with a workspace, and with limits of their own.
func (a *App) patterns(u *gateway.Upstreams) (*gateway.Patterns, error) {
	cfg := a.cfg.Reads.Federation
	if !cfg.Patterns {
		return nil, nil
	}
	live, err := a.liveTenants(u)
	if err != nil {
		return nil, err
	}
	b, err := a.blocksBucket()
	if err != nil {
		return nil, err
	}
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	return &gateway.Patterns{Most: cfg.MaxTenants, Tenants: func(ctx context.Context) ([]tenant.ID, error) {
		all, err := live(ctx)
		if err != nil {
			return nil, err
		}
		stored, err := block.Tenants(ctx, b)
		if err != nil {
			return nil, err
		}
		workspaces, err := control.Names(ctx, docs)
		if err != nil {
			return nil, err
		}
		all = append(append(all, stored...), a.limits.Tenants()...)
		for _, name := range workspaces {
			if id, err := tenant.Parse(name); err == nil {
				all = append(all, id)
			}
		}
		return all, nil
	}}, nil
}

// liveTenants lists the tenants that ingesters have samples of.
func (a *App) liveTenants(u *gateway.Upstreams) (func(context.Context) ([]tenant.ID, error), error) {
	if !a.cfg.runs("distributor") && !a.cfg.runs("querier") {
		h := u.Of(string(api.Distributor), true)
		if h == nil {
			return nil, config.Wrong("tenant_federation.regex_matcher_enabled", "needs a distributor among gateway.upstreams, which knows the tenants that have recent samples")
		}
		return func(ctx context.Context) ([]tenant.ID, error) { return statsFrom(ctx, h) }, nil
	}
	r, err := a.ingesterRing()
	if err != nil {
		return nil, err
	}
	c, err := a.clients()
	if err != nil {
		return nil, err
	}
	from := newUsage(r, c, func(tenant.ID) int { return 0 })
	return func(ctx context.Context) ([]tenant.ID, error) {
		stats, err := from.AllUsage(ctx)
		if err != nil {
			return nil, err
		}
		return idsOf(&stats)
	}, nil
}

// idsOf refuses an answer that lacks so many ingesters that it may lack tenants.
func idsOf(stats *admin.AllUsage) ([]tenant.ID, error) {
	if !stats.Whole && len(stats.Missing) > 0 { // distributors of the version before do not say the one
		return nil, errs.New(errs.Unavailable, "%d ingesters did not say which tenants they have", len(stats.Missing))
	}
	out := make([]tenant.ID, len(stats.Tenants))
	for i := range stats.Tenants {
		out[i] = stats.Tenants[i].Tenant
	}
	return out, nil
}

// statsFrom asks a distributor, which knows the ring.
func statsFrom(ctx context.Context, h http.Handler) ([]tenant.ID, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://distributor/distributor/all_user_stats", nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	w := &kept{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(w, r)
	if w.status != http.StatusOK || w.full {
		return nil, errs.New(errs.Unavailable, "a distributor answered %d when it was asked for tenants", w.status)
	}
	var stats struct {
		Tenants []struct {
			ID tenant.ID `json:"userID"`
		} `json:"tenants"`
		Missing []string `json:"missing"`
		Whole   bool     `json:"whole"`
	}
	if err := json.Unmarshal(w.body.Bytes(), &stats); err != nil {
		return nil, errs.New(errs.Unavailable, "what a distributor says of tenants cannot be read: %w", err)
	}
	all := admin.AllUsage{Missing: stats.Missing, Whole: stats.Whole}
	for _, t := range stats.Tenants {
		all.Tenants = append(all.Tenants, admin.TenantUsage{Tenant: t.ID})
	}
	return idsOf(&all)
}

// kept is an answer in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
	full   bool
}

func (k *kept) Header() http.Header    { return k.header }
func (k *kept) WriteHeader(status int) { k.status = status }

func (k *kept) Write(b []byte) (int, error) {
	if k.full = k.full || k.body.Len()+len(b) > mostStatsBytes; k.full {
		return 0, errs.New(errs.TooLarge, "answer is larger than %d bytes", mostStatsBytes)
	}
	return k.body.Write(b)
}
