package app

import (
	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/console"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
)

// mountConsole adds the console where clients come in.
func (a *App) mountConsole(d *api.Deps) error {
	if !a.cfg.hasGateway() {
		return nil
	}
	auth := &a.cfg.Callers.Gateway
	s := console.Settings{
		Version: telemetry.BuildInfo().Version, Authentication: auth.Enabled, Region: auth.Regions[0], Service: auth.Services[0],
		Account: auth.OperatorAccount, TokensForWorkspaces: auth.OtherSchemes,
		Prometheus: a.cfg.API.PrometheusPrefix, Alertmanager: a.cfg.API.AlertmanagerPrefix,
	}
	if !a.cfg.API.Tenancy.Enabled {
		s.DefaultTenant = a.cfg.API.Tenancy.NoAuthTenant
	}
	c, err := console.New(s)
	if err != nil {
		return err
	}
	d.Console = c.Serve
	return nil
}
