package app

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/grafana/dskit/kv"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// checkElections refuses a failover that is sooner than signs of life are shared: of several distributors
// one would take a replica that others hear for silent. How far apart its pushes are is not known here.
func (c *Config) checkElections() error {
	if !c.Distributor.Replicas.Enabled || c.alone() || !c.runs("distributor") {
		return nil
	}
	v := limits.NewOverrides(&c.Limits, limits.RuntimeConfig{}, limits.Deps{}).Defaults()
	failover := limits.HATrackerFailoverTimeout.Of(v)
	if least := limits.HATrackerUpdateTimeout.Of(v) + limits.HATrackerUpdateTimeoutJitterMax.Of(v) + time.Second; failover < least {
		return config.Wrong("limits.ha_tracker_failover_timeout", "is %s; it must be at least %s, which is ha_tracker_update_timeout, ha_tracker_update_timeout_jitter_max and 1s, "+
			"and, so that no replica that is alive is replaced, by the time between two of its pushes more", config.FormatDuration(failover), config.FormatDuration(least))
	}
	return nil
}

// elections knows which replicas are elected; nil if that is switched off.
func (a *App) elections() (*ha.Tracker, error) {
	return a.p.elections.get(func() (*ha.Tracker, error) {
		if !a.cfg.Distributor.Replicas.Enabled {
			return nil, nil
		}
		store, err := a.storeOf(a.cfg.Distributor.Replicas.Store)
		if err != nil {
			return nil, err
		}
		client, err := kv.NewClient(store, ha.Codec{}, kv.RegistererWithKVName(a.prefixed(), "distributor-ha-tracker"), a.kitLog("ha-tracker"))
		if err != nil {
			return nil, fmt.Errorf("store of elected replicas: %w", err)
		}
		deps := ha.Deps{Logger: a.log, Reg: a.reg, Store: client}
		if a.cfg.alone() {
			deps.File = filepath.Join(a.cfg.Ingester.DataDir, "elections")
		}
		t, err := ha.New(deps)
		if err != nil {
			return nil, err
		}
		return t, a.serve("ha-tracker", t)
	})
}

// electedPage gives the page of elected replicas what it shows.
func (a *App) electedPage() (func() admin.Elected, error) {
	t, err := a.elections()
	if err != nil {
		return nil, err
	}
	return func() admin.Elected {
		if t == nil {
			return admin.Elected{}
		}
		out := admin.Elected{Enabled: true}
		for _, c := range t.Clusters() {
			out.Clusters = append(out.Clusters, admin.ElectedReplica{Tenant: c.Tenant, Cluster: c.Cluster, Replica: c.Replica,
				ElectedAt: c.ElectedAt.UTC(), LastSeen: c.LastSeen.UTC(), Elections: c.Elections, FailoverDue: c.FailoverDue.UTC()})
		}
		return out
	}, nil
}
