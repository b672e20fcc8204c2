package frame

import (
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// tokenSeparator stands between the parts that are hashed; it never occurs in UTF-8 text.
const tokenSeparator = 0xff

// ShardToken is the place of a series on the ring, as it travels in Def.Token. It is the same in
// every process and version, and leaves out the label le, so that all buckets of a classic
// histogram live on the same ingesters.
func ShardToken[ID ~string](tenant ID, ls labels.Labels) uint32 {
	var scratch [1024]byte
	b := append(append(scratch[:0], tenant...), tokenSeparator)
	b = labeltext.AppendSeparated(b, ls, tokenSeparator, labels.BucketLabel)
	return uint32(xxhash.Sum64(b))
}
