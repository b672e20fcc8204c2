package head

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

func TestACutTakesNoMoreDiskThanItsChunksMayNeed(t *testing.T) {
	for series, want := range map[uint64]int64{0: 1 << 20, 100: 1 << 20, 10_000: 40_960_000, 1 << 20: chunks.DefaultChunkSegmentSize, 1 << 62: chunks.DefaultChunkSegmentSize} {
		if got := segmentBytes(series); got != want {
			t.Errorf("%d series: segments of %d bytes, want %d", series, got, want)
		}
	}
}
