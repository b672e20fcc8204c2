package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/gateway"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/ruler"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// control is the control plane.
func (a *App) control() (*control.Control, error) {
	return a.p.control.get(func() (*control.Control, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		check, err := a.rulesChecker()
		if err != nil {
			return nil, err
		}
		changed, err := a.scrapersChanged()
		if err != nil {
			return nil, err
		}
		announce, err := a.announcer()
		if err != nil {
			return nil, err
		}
		forget, err := a.forgetUsage()
		if err != nil {
			return nil, err
		}
		d := control.Deps{
			Documents: docs, Region: a.region(), Account: a.accountOf, Only: workspaceOf, Log: a.log, Reg: a.reg,
			RulesKey: ruler.DocumentKey, RulesName: ruler.NamespaceOf, CheckRules: check,
			DefinitionKey: definitionKey, CheckDefinition: a.checkDefinition, CheckLimits: limits.Check,
			RulesChanged: announce, CheckScrape: a.checkScrape, ScrapersChanged: changed,
			Purge:       func(ctx context.Context, id tenant.ID) error { return errors.Join(purge(ctx, b, id), forget(ctx, id)) },
			CheckPolicy: checkPolicy, Epoch: func(id tenant.ID) uint64 { return a.limits.For(id).Epoch() },
		}
		if allowance := gateway.NewAllowance(&a.cfg.Callers.Gateway); allowance != nil && !a.cfg.hasGateway() {
			d.Allow = allowance.Take
		}
		c := control.New(a.cfg.Control, d)
		return c, a.serve("control", c)
	})
}

// checkPolicy says whether the gateway will be able to read a resource policy.
func checkPolicy(document []byte) error {
	_, err := iam.ParsePolicy(iam.ResourcePolicy, document)
	return err
}

// workspaces knows who owns a workspace, also in a process that does not serve the control plane. It is
// nil where nobody asks who calls and nobody makes workspaces.
func (a *App) workspaces() (gateway.Workspaces, error) {
	if a.cfg.runs("control") {
		return a.control()
	}
	if !a.cfg.Callers.Gateway.Enabled {
		return nil, nil
	}
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	return control.NewDirectory(docs), nil
}

// purge marks a tenant for deletion, which compactors then do.
func purge(ctx context.Context, b objstore.InstrumentedBucket, id tenant.ID) error {
	bkt := objstore.NewPrefixedBucket(b, string(id))
	if d, err := block.ReadTenantDeletion(ctx, bkt); err != nil || d != nil {
		return err
	}
	return block.WriteTenantDeletion(ctx, bkt, block.TenantDeletion{DeletionTime: time.Now().Unix()})
}

// workspaceLimits gives what workspaces configure to the limits of this process.
func (a *App) workspaceLimits() error {
	docs, err := a.documents()
	if err != nil {
		return err
	}
	a.logs = control.NewLimits(a.cfg.Control, docs, limits.Check, a.limits.Overlay, a.log)
	return a.serve("workspace-limits", a.logs)
}

// accountOf is the account on behalf of which a request is made: that of the caller as the gateway found
// it out. With authentication on nobody gets here who is not one.
func (a *App) accountOf(r *http.Request) (string, error) {
	c, err := iam.CallerOf(r.Header)
	if err != nil && !a.cfg.Callers.Gateway.Enabled {
		return a.cfg.Callers.Gateway.OperatorAccount, nil
	}
	return c.Account, err
}

// workspaceOf is the only workspace of a caller with a token that is bound to one.
func workspaceOf(r *http.Request) string {
	c, err := iam.CallerOf(r.Header)
	if err != nil {
		return ""
	}
	return c.Workspace
}

// region stands in ARNs.
func (a *App) region() string { return a.cfg.Callers.Gateway.Regions[0] }

// announcer tells rulers of changed rules.
func (a *App) announcer() (func(context.Context, tenant.ID), error) {
	if a.cfg.runs("ruler") {
		r, err := a.ruler()
		if err != nil {
			return nil, err
		}
		return r.Announce, nil
	}
	cluster, err := a.rulers()
	if err != nil {
		return nil, err
	}
	return (&ruler.Announcer{Logger: a.log, Limits: a.limits.For, Cluster: cluster}).Announce, nil
}
