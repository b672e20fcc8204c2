package bucket

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
)

// instrument measures b as amphora_objstore_bucket_*, with name as label component, the name by
// which the field's dashboards group these families.
func instrument(b objstore.Bucket, name string, prices Prices, reg prometheus.Registerer) objstore.InstrumentedBucket {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	reg = prometheus.WrapRegistererWithPrefix("amphora_", prometheus.WrapRegistererWith(prometheus.Labels{"component": name}, reg))
	return &accounted{objstore.WrapWithMetrics(b, reg, b.Name()), newAccounts(reg, prices)}
}
