package alertmanager

import (
	"context"
	"log/slog"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// inForce is the configurations that tenants run with: their own, and what a Grafana promoted for those that
// have none.
type inForce struct{ own, promoted Definitions }

// ofPromoted begins the version of a promoted configuration, so that it is never taken for one of the
// tenant's own.
const ofPromoted = "grafana "

// Read returns a configuration and its version. Errors: NotFound.
func (d inForce) Read(ctx context.Context, id tenant.ID) (data []byte, version string, err error) {
	data, version, err = d.own.Read(ctx, id)
	if d.promoted == nil || errs.KindOf(err) != errs.NotFound {
		return data, version, err
	}
	data, version, err = d.promoted.Read(ctx, id)
	return data, ofPromoted + version, err
}

// Versions returns the versions of all configurations.
func (d inForce) Versions(ctx context.Context) (map[tenant.ID]string, error) {
	out, err := d.own.Versions(ctx)
	if err != nil || d.promoted == nil {
		return out, err
	}
	promoted, err := d.promoted.Versions(ctx)
	if err != nil {
		return nil, err
	}
	for id, version := range promoted {
		if _, has := out[id]; !has {
			out[id] = ofPromoted + version
		}
	}
	return out, nil
}

// promote puts a configuration of Grafana that was checked in force, if it is promoted, or takes the one
// before out of force. One that is wrong changes nothing. Errors: Invalid.
func (m *Alertmanager) promote(ctx context.Context, id tenant.ID, data []byte) error {
	if m.deps.Promoted == nil {
		return nil
	}
	out, err := m.translated(id, data)
	if err != nil {
		return err
	}
	if out == nil {
		return m.demote(ctx, id)
	}
	if err := m.deps.Promoted.Write(ctx, id, out); err != nil {
		return err
	}
	_, _, err = m.deps.Definitions.Read(ctx, id)
	switch {
	case errs.KindOf(err) == errs.NotFound:
		m.reload(ctx, id)
	case err == nil:
		m.log.Warn("promoted configuration of a Grafana is kept and not in force, the tenant has one of its own", "tenant", string(id))
	}
	return nil
}

// demote takes what a Grafana promoted out of force.
func (m *Alertmanager) demote(ctx context.Context, id tenant.ID) error {
	_, _, err := m.deps.Promoted.Read(ctx, id)
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	if err := m.deps.Promoted.Remove(ctx, id); err != nil {
		return err
	}
	m.reload(ctx, id)
	return nil
}

// forgetForGrafana removes the document of a path, and what follows from it.
func (m *Alertmanager) forgetForGrafana(ctx context.Context, id tenant.ID, path string) error {
	if path == GrafanaConfigPath && m.deps.Promoted != nil {
		if err := m.demote(ctx, id); err != nil {
			return err
		}
	}
	return m.deps.Grafana.Remove(ctx, id, grafanaDoc(path))
}

// promotedInForce says whether a tenant whose Grafana promoted its configuration runs with it.
func (m *Alertmanager) promotedInForce(ctx context.Context, id tenant.ID) (*bool, error) {
	_, version, err := m.defs.Read(ctx, id)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return nil, err
	}
	is := err == nil && m.deps.Promoted != nil && strings.HasPrefix(version, ofPromoted)
	return &is, nil
}

// translated returns the definition that a promoted configuration is; nil if it is not promoted. It was built
// once, so that the tenant's alertmanager can run with it. Errors: Invalid.
func (m *Alertmanager) translated(id tenant.ID, data []byte) ([]byte, error) {
	d, promoted, err := readPromoted(data)
	if err != nil || !promoted {
		return nil, err
	}
	def, err := translateGrafana(d)
	if err != nil {
		return nil, unlined(err, d.secrets())
	}
	out, err := encodeDefinition(def)
	if err != nil {
		return nil, errs.New(errs.Invalid, "translate the configuration of Grafana: %w", err)
	}
	if err := validate(m.rules, m.external, id, out, translatedView(m.deps.Limits(id))); err != nil {
		return nil, unlined(err, d.secrets())
	}
	return out, nil
}

// translatedView is the limits that a translation is held to: those of sizes are for what Grafana sent.
func translatedView(v limits.View) limits.View {
	v = limits.AlertmanagerMaxConfigSize.With(v, 0)
	v = limits.AlertmanagerMaxTemplates.With(v, 0)
	return limits.AlertmanagerMaxTemplateSize.With(v, 0)
}

// quiet is what builds receivers that are not those of a running alertmanager.
func (m *Alertmanager) quiet(id tenant.ID) *sending {
	return &sending{log: slog.New(slog.DiscardHandler), view: func() limits.View { return m.deps.Limits(id) }, limited: m.metrics.testsLimited}
}
