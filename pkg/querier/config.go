package querier

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of reading, mounted as querier beside those of the engine.
type Config struct {
	QueryStoreAfter          time.Duration
	QueryIngestersWithin     time.Duration
	MinimizeIngesterRequests bool
	ShuffleSharding          bool
	PreferAvailabilityZones  []string
	FilterQueryables         bool
}

// Declare names each setting once.
//
// query_store_after is 0 so that every answer is whole whatever happened to the ingesters: a
// replica that lost its disk, or one that was replaced after it had uploaded everything, leaves
// no gap. The price is that blocks of the last hours are read from both places. A cluster that
// never takes away more than one replica at a time may set it to 12h.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.QueryStoreAfter, "query-store-after", 0,
		"Blocks in object storage are asked for samples older than this; 0: always. At most the ingesters' retention minus an hour.").Expert()
	s.Duration(&c.QueryIngestersWithin, "query-ingesters-within", 13*time.Hour,
		"Ingesters are asked for samples younger than this; 0: always. At most the ingesters' retention.").Expert()
	s.Bool(&c.ShuffleSharding, "shuffle-sharding-ingesters-enabled", true,
		"Ask only the ingesters that a tenant's series may be on, now or since query_ingesters_within, if ingestion_tenant_shard_size limits them. Off: ask all.").Expert()
	s.Strings(&c.PreferAvailabilityZones, "prefer-availability-zones", nil,
		"Zones whose ingesters and store-gateways are asked first, where not all have to be asked. Empty: the zone of this process.").Expert()
	s.Bool(&c.FilterQueryables, "filter-queryables-enabled", false,
		"Let requests restrict themselves, by the header X-Filter-Queryables, to ingesters (ingester) or store-gateways (store-gateway), to find out what each holds. Such answers are incomplete.").Expert()
	s.Bool(&c.MinimizeIngesterRequests, "minimize-ingester-requests", true,
		"Query only as many replicas as a quorum needs, and the others when one is slow or fails.").Expert()
}
