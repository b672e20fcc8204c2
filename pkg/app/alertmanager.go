package app

import (
	"context"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/alertmanager"
	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// tokensPerAlertmanager spreads tenants evenly.
	tokensPerAlertmanager = 128
	// clusterDir holds what is not of one tenant's blocks; no tenant can be named after it.
	clusterDir = "__amphora_cluster"
	// alertDocs is where definitions lie among the documents.
	alertDocs = "alerts/"
)

// AlertRingConfig of the alertmanagers' hash ring, mounted as alertmanager.sharding_ring.
type AlertRingConfig struct {
	Heartbeats        members.Heartbeats
	ReplicationFactor int
	ZoneAwareness     bool
}

// Declare names the settings.
func (c *AlertRingConfig) Declare(s *config.Set) {
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent alertmanager is removed from the ring. 0: never.").Expert()
	s.Int(&c.ReplicationFactor, "replication_factor", 3, "Alertmanagers that run each tenant.").Expert()
	s.Bool(&c.ZoneAwareness, "zone_awareness_enabled", false, "Place the replicas of a tenant in different zones. Every alertmanager then needs a zone.").Expert()
}

// Validate refuses what cannot work.
func (c *AlertRingConfig) Validate() error {
	if c.ReplicationFactor < 1 {
		return config.Wrong("replication_factor", "is %d; it must be 1 or more", c.ReplicationFactor)
	}
	return nil
}

// alertRing is the view of the alertmanagers of each other.
func (a *App) alertRing() (*ring.Ring, error) {
	return a.p.alertRing.get(func() (*ring.Ring, error) {
		return a.workersRing(alertmanager.RingName, alertmanager.RingKey, ring.Config{HeartbeatTimeout: a.cfg.AlertRing.Heartbeats.Timeout,
			ZoneAwarenessEnabled: a.cfg.AlertRing.ZoneAwareness, ReplicationFactor: a.cfg.AlertRing.ReplicationFactor})
	})
}

// alertmanager is the one of this process.
func (a *App) alertmanager() (*alertmanager.Alertmanager, error) {
	return a.p.alertmanager.get(func() (*alertmanager.Alertmanager, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		r, err := a.alertRing()
		if err != nil {
			return nil, err
		}
		clients, err := transport.NewAlertmanagers(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
		if err != nil {
			return nil, err
		}
		if err := a.serve("alertmanager-clients", clients); err != nil {
			return nil, err
		}
		self, err := a.instanceAddr()
		if err != nil {
			return nil, err
		}
		am, err := alertmanager.New(a.cfg.Alertmanager, alertmanager.Deps{Logger: a.events(), Reg: a.reg, Limits: a.limits.For,
			Definitions: definitions{docstore.NewTexts(docs, nil), alertDocs}, Grafana: grafanaDocuments{docs}, Promoted: definitions{docstore.NewTexts(docs, nil), promotedDocs}, Bucket: objstore.NewPrefixedBucket(b, clusterDir), Self: self,
			Replicas: alertReplicas(r, a.cfg.AlertRing.ReplicationFactor), Client: clients.For})
		if err != nil {
			return nil, err
		}
		if err := clients.Register(self, am); err != nil {
			return nil, err
		}
		return am, nil
	})
}

// buildAlertmanager builds the alertmanager with its gRPC service and its place in the ring, which
// it takes before it runs and leaves after it stopped, so that it never thinks of itself as alone.
func (a *App) buildAlertmanager() error {
	am, err := a.alertmanager()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	alertmanagerpb.RegisterAlertmanagerServer(s.GRPC(), am)
	err = a.workersEntry(alertmanager.RingName, alertmanager.RingKey, worker{beats: a.cfg.AlertRing.Heartbeats, tokens: tokensPerAlertmanager, leave: true})
	if err != nil {
		return err
	}
	return a.serve("alertmanager", am)
}

// alertReplicas finds the replicas of tenants in the ring. How many must agree follows from all that
// should be there, those that died included until they are forgotten.
func alertReplicas(r *ring.Ring, rf int) func(tenant.ID) (alertmanager.Replicas, error) {
	op := ring.NewOp([]ring.InstanceState{ring.ACTIVE}, func(s ring.InstanceState) bool { return s != ring.ACTIVE })
	return func(id tenant.ID) (alertmanager.Replicas, error) {
		set, err := r.Get(uint32(xxhash.Sum64String(string(id))), op, nil, nil, nil) //nolint:gosec // Tokens are 32 bits of a hash.
		if err != nil {
			return alertmanager.Replicas{}, err
		}
		return alertmanager.Replicas{Addrs: set.GetAddresses(), Quorum: min(rf, max(1, r.InstancesCount()))/2 + 1}, nil
	}
}

// promotedDocs begins the keys of what Grafanas promoted, and grafanaDocs those of what they keep.
const (
	promotedDocs = "grafana_promoted/"
	grafanaDocs  = "grafana_alertmanager/"
)

// definitions keeps the configurations of alertmanagers among the documents of the cluster.
type definitions struct {
	docs   *docstore.Texts
	prefix string // of their keys
}

// Read is part of alertmanager.Definitions.
func (d definitions) Read(ctx context.Context, id tenant.ID) ([]byte, string, error) {
	doc, err := d.docs.Get(ctx, d.prefix+string(id))
	return doc.Data, string(doc.Version), err
}

// Write is part of alertmanager.Definitions.
func (d definitions) Write(ctx context.Context, id tenant.ID, data []byte) error {
	return d.docs.Overwrite(ctx, d.prefix+string(id), data)
}

// Remove is part of alertmanager.Definitions.
func (d definitions) Remove(ctx context.Context, id tenant.ID) error {
	return removeDocument(ctx, d.docs, d.prefix+string(id))
}

// removable is a store of documents, or of texts.
type removable interface {
	Get(ctx context.Context, key string) (docstore.Doc, error)
	Delete(ctx context.Context, key string, expect docstore.Version) error
}

// removeDocument deletes a document, whatever its version is; one that does not exist is no error.
func removeDocument(ctx context.Context, docs removable, key string) error {
	for {
		doc, err := docs.Get(ctx, key)
		if err == nil {
			err = docs.Delete(ctx, doc.Key, doc.Version)
		}
		switch errs.KindOf(err) {
		case errs.NotFound:
			return nil
		case errs.Conflict:
			continue // it was changed meanwhile
		}
		return err
	}
}

// Versions is part of alertmanager.Definitions.
func (d definitions) Versions(ctx context.Context) (map[tenant.ID]string, error) {
	entries, err := d.docs.List(ctx, strings.TrimSuffix(d.prefix, "/"))
	if err != nil {
		return nil, err
	}
	out := make(map[tenant.ID]string, len(entries))
	for _, e := range entries {
		id, err := tenant.Parse(strings.TrimPrefix(e.Key, d.prefix))
		if err != nil {
			continue // nobody can ask for it
		}
		out[id] = string(e.Version)
	}
	return out, nil
}

// grafanaDocuments keeps what Grafanas store of tenants among the documents of the cluster.
type grafanaDocuments struct{ docs *docstore.Store }

func grafanaKey(id tenant.ID, name string) string {
	return grafanaDocs + string(id) + "/" + name
}

// Read is part of alertmanager.GrafanaDocuments.
func (d grafanaDocuments) Read(ctx context.Context, id tenant.ID, name string) ([]byte, error) {
	doc, err := d.docs.Get(ctx, grafanaKey(id, name))
	return doc.Data, err
}

// Write is part of alertmanager.GrafanaDocuments.
func (d grafanaDocuments) Write(ctx context.Context, id tenant.ID, name string, data []byte) error {
	_, err := d.docs.Overwrite(ctx, grafanaKey(id, name), data)
	return err
}

// Remove is part of alertmanager.GrafanaDocuments.
func (d grafanaDocuments) Remove(ctx context.Context, id tenant.ID, name string) error {
	return removeDocument(ctx, d.docs, grafanaKey(id, name))
}

// mountAlertmanager gives the API what it serves of alertmanagers.
func (a *App) mountAlertmanager(d *api.Deps) error {
	if !a.cfg.runs("alertmanager") {
		return nil
	}
	am, err := a.alertmanager()
	if err != nil {
		return err
	}
	r, err := a.alertRing()
	if err != nil {
		return err
	}
	d.Alertmanager = &api.AlertmanagerDeps{
		Serve: am.Serve,
		Pages: alertPages{am}, Tenants: alertPages{am}.tenants, Configurations: am.Configurations, DeleteTenant: am.DeleteTenant,
		Ring: roster{&members.Roster{KV: r.KVClient, Key: alertmanager.RingKey, Timeout: a.cfg.AlertRing.Heartbeats.Timeout, Zones: a.cfg.AlertRing.ZoneAwareness}},
	}
	if a.cfg.Alertmanager.Grafana {
		d.Alertmanager.Grafana = am.ServeGrafana
	}
	if a.cfg.Alertmanager.EnableAPI {
		d.Alertmanager.Definition = admin.Handler(am.ServeDefinition)
	}
	return nil
}
