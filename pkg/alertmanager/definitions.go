package alertmanager

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

func encodeDefinition(d Definition) ([]byte, error) { return yaml.Marshal(d) }

// Validate says what is wrong with a definition for a tenant with the limits v, in a process that need
// not run an alertmanager. Errors: Invalid.
func Validate(cfg Config, id tenant.ID, data []byte, v limits.View) error {
	external, err := url.Parse(cfg.ExternalURL)
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	by, err := cfg.rules()
	if err != nil {
		return err
	}
	return validate(by, external, id, data, v)
}

// validate reads a definition and builds what it describes.
func validate(by rules, external *url.URL, id tenant.ID, data []byte, v limits.View) error {
	d, err := parse(data, by, v)
	if err != nil {
		return err
	}
	_, err = build(d, id, external, &sending{log: slog.New(slog.DiscardHandler), view: func() limits.View { return v }})
	return err
}

// Check says what is wrong with a definition for a tenant, without storing it. Errors: Invalid.
func (m *Alertmanager) Check(id tenant.ID, data []byte) error {
	return validate(m.rules, m.external, id, data, m.deps.Limits(id))
}

// Put checks and stores a definition, byte for byte, and puts it in force on the replicas that can be
// reached. One that is wrong changes nothing. Errors: Invalid.
func (m *Alertmanager) Put(ctx context.Context, id tenant.ID, data []byte) error {
	if err := m.Check(id, data); err != nil {
		return err
	}
	if err := m.deps.Definitions.Write(ctx, id, data); err != nil {
		return err
	}
	m.reload(ctx, id)
	return nil
}

// absent begins what is said of a configuration that does not exist: Grafana knows by these words that a
// tenant has none.
const absent = "alertmanager storage object not found"

// DeleteTenant removes all that a tenant has here.
func (m *Alertmanager) DeleteTenant(ctx context.Context, id tenant.ID) error {
	if err := m.Delete(ctx, id); err != nil || m.deps.Grafana == nil {
		return err
	}
	return errors.Join(m.forgetForGrafana(ctx, id, GrafanaConfigPath), m.forgetForGrafana(ctx, id, GrafanaStatePath))
}

// Get returns a definition as it was put. Errors: NotFound.
func (m *Alertmanager) Get(ctx context.Context, id tenant.ID) ([]byte, error) {
	data, _, err := m.deps.Definitions.Read(ctx, id)
	if errs.KindOf(err) == errs.NotFound {
		return nil, errs.New(errs.NotFound, absent+": the alertmanager of tenant %s has no configuration", id)
	}
	return data, err
}

// Delete removes a definition; the tenant's alertmanager then runs with what a Grafana promoted, or with the
// fallback.
func (m *Alertmanager) Delete(ctx context.Context, id tenant.ID) error {
	if err := m.deps.Definitions.Remove(ctx, id); err != nil {
		return err
	}
	m.reload(ctx, id)
	return nil
}

// reload tells the replicas that a configuration changed. One that does not hear it finds out by
// itself.
func (m *Alertmanager) reload(ctx context.Context, id tenant.ID) {
	// It is stored, so that a caller who goes away does not keep the replicas from it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*peerCall)
	defer cancel()
	r, err := m.deps.Replicas(id)
	if err != nil {
		m.metrics.ringCheckErrors.Inc()
		return
	}
	var wg sync.WaitGroup
	for _, addr := range r.Addrs {
		wg.Go(func() {
			c, err := m.deps.Client(addr)
			if err == nil {
				_, err = c.Reload(tenant.Inject(ctx, id), &pb.ReloadRequest{})
			}
			if err != nil {
				m.log.Debug("replica not told of a changed configuration, it will look by itself", "replica", addr, "err", err)
			}
		})
	}
	wg.Wait()
}

// changed looks at one tenant's configuration now.
func (m *Alertmanager) changed(ctx context.Context, id tenant.ID) error {
	_, version, err := m.defs.Read(ctx, id)
	none := errs.KindOf(err) == errs.NotFound
	if err != nil && !none {
		return err
	}
	m.mu.Lock()
	known := make(map[tenant.ID]string, len(m.known)+1)
	for k, v := range m.known {
		known[k] = v
	}
	known[id] = version
	if none {
		delete(known, id)
	}
	m.known = known
	in := m.instances[id]
	m.mu.Unlock()
	if none {
		if in != nil {
			m.stopAll(ctx, []*instance{in})
		}
		return nil
	}
	_, err = m.refresh(ctx, id)
	return err
}

// ServeDefinition answers GET, POST and DELETE of the definition of the tenant in the context.
func (m *Alertmanager) ServeDefinition(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodPost:
		data, err := readBody(w, r, m.cfg.MaxRecvMsgBytes)
		if err != nil {
			return err
		}
		if err := m.Put(r.Context(), id, data); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		return nil
	case http.MethodDelete:
		return m.Delete(r.Context(), id)
	}
	data, err := m.Get(r.Context(), id)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // the client is gone if this fails
	return nil
}
