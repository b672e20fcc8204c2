package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/alertmanager"
	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/compactor"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/vault"
	"github.com/amphora-metrics/amphora/pkg/continuoustest"
	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/distributor"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/storegateway"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// Config is the configuration of a process: one part per room.
type Config struct {
	Target        []string
	ShutdownDelay time.Duration

	Telemetry       telemetry.Config
	Memory          memory.Config
	Server          transport.Config
	Exposure        transport.Exposure
	Callers         CallersConfig
	Clients         transport.ClientConfig
	API             api.Config
	Costs           CostsConfig
	Memberlist      MemberlistConfig
	KVStore         KVStoreConfig
	Ring            members.Config
	DistributorRing members.DistributorConfig
	Limits          limits.Defaults
	Runtime         limits.RuntimeConfig
	Bucket          bucket.Config
	StoreGateway    storegateway.Config
	StoreRing       StoreRingConfig
	Rules           RulesConfig
	BucketIndex     BlocksConfig
	Compactor       compactor.Config
	CompactorRing   CompactorRingConfig
	Distributor     distributor.Config
	Ingester        ingester.Config
	Querier         querier.Config
	Engine          engine.Config
	Reads           ReadsConfig

	AlertsConfig
	ControlConfig
}

// ControlConfig is of what is beside the paths of samples: where secrets are, the control plane, the scrapers
// that it has made, the exporter of limits and the continuous test.
type ControlConfig struct {
	Vault          vault.Config
	Control        control.Config
	Scrapers       ScraperConfig
	Exporter       limits.ExportConfig
	ContinuousTest continuoustest.Config
}

// AlertsConfig is of the alertmanager and of its place among its peers.
type AlertsConfig struct {
	Alertmanager alertmanager.Config
	AlertRing    AlertRingConfig
}

// Declare names every setting of the process; the flags, the file, the environment and the
// reference come from it.
func (c *Config) Declare(s *config.Set) {
	s.Strings(&c.Target, "target", []string{"all"}, "What this process runs: a list of "+targetNames()+".")
	s.Duration(&c.ShutdownDelay, "shutdown-delay", 0, "How long the process keeps serving, but not ready, after it was told to stop, so that load balancers stop sending to it first.")
	s.Mount("", &c.Telemetry)
	s.Mount("vault", &c.Vault)
	s.Resolve(c.Vault.Resolve)
	s.Mount("memory", &c.Memory)
	s.Mount("activity_tracker", &c.Telemetry.Activity)
	s.Mount("", &c.API.Tenancy)
	s.Mount("", &c.Costs)
	s.Mount("auth", &c.Exposure)
	s.Mount("", &c.Callers)
	s.Mount("server", &c.Server)
	s.Mount("api", &c.API)
	s.Mount("memberlist", &c.Memberlist)
	s.Mount("kvstore", &c.KVStore)
	s.Mount("distributor", &c.Distributor)
	s.Mount("distributor.ring", &c.DistributorRing)
	s.Mount("distributor.retry_after_header", &c.API.Ingest.Retry)
	s.Mount("distributor", &c.API.Ingest.Protocols)
	s.Mount("ingester.ring", &c.Ring)
	s.Mount("ingester", &c.Ingester)
	s.Mount("ingester_client", &c.Clients)
	s.Mount("common.client_cluster_validation", &c.Clients.Cluster)
	s.Mount("querier", &c.Querier)
	s.Mount("querier", &c.Engine)
	c.Reads.declare(s)
	s.Mount("blocks_storage", &c.Bucket)
	s.Mount("blocks_storage.bucket_store", &c.StoreGateway)
	s.Mount("", &c.Rules)
	s.Mount("blocks_storage.bucket_store.bucket_index", &c.BucketIndex)
	s.Mount("store_gateway.sharding_ring", &c.StoreRing)
	s.Mount("compactor", &c.Compactor)
	s.Mount("compactor.sharding_ring", &c.CompactorRing)
	s.Mount("alertmanager", &c.Alertmanager)
	s.Mount("alertmanager.sharding_ring", &c.AlertRing)
	s.Mount("control", &c.Control)
	s.Mount("", &c.Scrapers)
	s.Mount("overrides_exporter", &c.Exporter)
	s.Mount("tests", &c.ContinuousTest)
	s.Mount("limits", &c.Limits)
	s.Mount("runtime_config", &c.Runtime)
}

// Declare declares every setting of a process into s; the reference is printed from it.
func Declare(s *config.Set) { s.Mount("", new(Config)) }

// Validate refuses what no part can see by itself.
func (c *Config) Validate() error {
	if _, err := resolve(c.Target); err != nil {
		return config.Wrong("target", "%w", err)
	}
	if c.runs("ingester") && !c.alone() {
		if err := c.Ring.ValidateIngester(); err != nil {
			return err
		}
	}
	// What the gateway does not stand before needs client certificates or a loopback address.
	if err := transport.CheckExposure(c.Server, c.Exposure, c.Callers.Gateway.Enabled && c.hasGateway()); err != nil {
		return err
	}
	if err := c.checkStores(); err != nil {
		return err
	}
	if err := c.checkElections(); err != nil {
		return err
	}
	return c.checkGossip()
}

// derive shows what follows from the settings and the machine.
func (c *Config) derive(s *config.Set) {
	how := "ingester.ring.replication_factor"
	if c.alone() {
		how = "the process runs everything and joins nobody"
	}
	s.Derive("replication_factor", how, func() string { return strconv.Itoa(c.replicationFactor()) })
	s.Derive("targets", "target", func() string {
		ts, _ := resolve(c.Target)
		var names []string
		for _, t := range ts {
			names = append(names, t.name)
		}
		return strings.Join(names, ",")
	})
	s.Derive("max_samples", "querier.max_samples, and at most a quarter of go_memory_limit_bytes", func() string { return strconv.Itoa(c.engine().MaxSamples) })
}

// engine is the settings of evaluation. One query may hold no more samples than fit into a quarter of
// the memory: what the engine makes of a selection is not seen until it is there.
func (c *Config) engine() engine.Config {
	const part, sampleBytes = 4, 16
	e := c.Engine
	e.MaxSamples = min(e.MaxSamples, int(c.Memory.Limits().Go/part/sampleBytes))
	return e
}

func targetNames() string {
	var names []string
	for _, t := range targetDocs {
		names = append(names, t.name)
	}
	return fmt.Sprint(strings.Join(names, ", "))
}
