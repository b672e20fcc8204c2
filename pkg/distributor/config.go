package distributor

import (
	"math"
	"runtime/debug"
	"time"

	"github.com/amphora-metrics/amphora/pkg/admission"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
)

// Config is the configuration of a distributor, mounted as "distributor".
type Config struct {
	// RemoteTimeout bounds the wait for the ingesters' answers to one push.
	RemoteTimeout time.Duration
	// MaxRecvMsgBytes is the largest body of a push, compressed or not.
	MaxRecvMsgBytes int
	// KnownTenantsOnly refuses clients' pushes for tenants that Deps.Known does not know.
	KnownTenantsOnly bool
	// InstanceLimits protect the process.
	InstanceLimits InstanceLimits
	// SeriesCacheBytes is the memory for remembered series. 0: derived.
	SeriesCacheBytes int
	// Reactive bounds the pushes in flight by their latency.
	Reactive admission.LimiterConfig
	// Replicas is the deduplication of what replicas send.
	Replicas ha.Config
}

// InstanceLimits protect one process from more pushes than it can hold.
type InstanceLimits struct {
	MaxInflightPushRequests      int // 0: no limit
	MaxInflightPushRequestsBytes int // 0: derived
	// MaxIngestionRate is samples, exemplars and metadata per second. 0: no limit.
	MaxIngestionRate float64
}

// Declare declares the settings.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.RemoteTimeout, "remote_timeout", 2*time.Second, "How long a push waits for ingesters.")
	s.Int(&c.MaxRecvMsgBytes, "max_recv_msg_size", 100<<20, "Largest body of a push in bytes, compressed and decompressed.")
	s.Bool(&c.KnownTenantsOnly, "known_tenants_only", false, "Accept samples only for known tenants and answer 403 for others. Known are the tenants in the overrides of runtime_config.file, even without any limits there, and active workspaces.")
	s.Int(&c.InstanceLimits.MaxInflightPushRequests, "instance_limits.max_inflight_push_requests", 2000,
		"Pushes one distributor handles at once; more are answered 503. 0: no limit.").Expert()
	s.Int(&c.InstanceLimits.MaxInflightPushRequestsBytes, "instance_limits.max_inflight_push_requests_bytes", 0,
		"Decompressed bytes of the pushes one distributor handles at once; more are answered 503. 0: a quarter of the memory limit.").Expert()
	s.Float(&c.InstanceLimits.MaxIngestionRate, "instance_limits.max_ingestion_rate", 0,
		"Samples per second one distributor accepts, as a moving average; above it pushes are answered 503. 0: no limit.").Expert()
	s.Int(&c.SeriesCacheBytes, "series_cache_bytes", 0,
		"Memory for what is remembered about series between pushes, about 85 bytes each. 0: an eighth of the memory limit.").Expert()
	s.Mount("reactive_limiter", &c.Reactive)
	s.Mount("ha_tracker", &c.Replicas)
}

// assumedMemoryBytes stands for the memory limit where none is set.
const assumedMemoryBytes = 8 << 30

// derive replaces zeros by what follows from the memory limit of the process.
func (c Config) derive() Config {
	memory := debug.SetMemoryLimit(-1) // reads it
	if memory == math.MaxInt64 {
		memory = assumedMemoryBytes
	}
	if c.InstanceLimits.MaxInflightPushRequestsBytes == 0 {
		c.InstanceLimits.MaxInflightPushRequestsBytes = int(memory / 4)
	}
	if c.SeriesCacheBytes == 0 {
		c.SeriesCacheBytes = int(memory / 8)
	}
	return c
}
