package distributor

import (
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// separator stands between the parts that are hashed; it never occurs in UTF-8 text.
const separator = 0xff

// ShardToken is the place of a series on the ring. It is the same in every process and version,
// and leaves out the label le, so that all buckets of a classic histogram live on the same
// ingesters.
func ShardToken(id tenant.ID, ls labels.Labels) uint32 {
	var scratch [1024]byte
	b := append(append(scratch[:0], id...), separator)
	ls.Range(func(l labels.Label) {
		if l.Name == labels.BucketLabel {
			return
		}
		b = append(append(b, l.Name...), separator)
		b = append(append(b, l.Value...), separator)
	})
	return uint32(xxhash.Sum64(b))
}

// MetadataToken is the place of the metadata of a metric family on the ring.
func MetadataToken(id tenant.ID, family string) uint32 {
	var scratch [256]byte
	b := append(append(append(scratch[:0], id...), separator), family...)
	return uint32(xxhash.Sum64(b))
}
