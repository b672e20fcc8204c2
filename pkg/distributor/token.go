package distributor

import (
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// separator stands between the parts that are hashed; it never occurs in UTF-8 text.
const separator = 0xff

// ShardToken is the place of a series on the ring: see frame.ShardToken.
func ShardToken(id tenant.ID, ls labels.Labels) uint32 { return frame.ShardToken(id, ls) }

// MetadataToken is the place of the metadata of a metric family on the ring.
func MetadataToken(id tenant.ID, family string) uint32 {
	var scratch [256]byte
	b := append(append(append(scratch[:0], id...), separator), family...)
	return uint32(xxhash.Sum64(b))
}
