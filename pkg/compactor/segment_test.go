package compactor

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/block"
)

func TestAJobTakesNoMoreDiskThanItsChunksMayNeed(t *testing.T) {
	of := func(sizes ...int64) (m block.Meta) {
		for _, n := range sizes {
			m.Thanos.Files = append(m.Thanos.Files, block.File{RelPath: block.ChunksDir + "/000001", SizeBytes: n})
		}
		m.Thanos.Files = append(m.Thanos.Files, block.File{RelPath: block.IndexFile, SizeBytes: 1 << 40}, block.File{RelPath: block.MetaFile})
		return m
	}
	for want, sources := range map[int64][]block.Meta{
		minSegment:                     {of(100), of(200)},
		100 << 20:                      {of(30<<20, 10<<20), of(40 << 20)},
		chunks.DefaultChunkSegmentSize: {of(300 << 20), of(300 << 20)},
	} {
		if got := segmentBytes(sources); got != want {
			t.Errorf("segments of %d bytes, want %d", got, want)
		}
	}
	if got := segmentBytes([]block.Meta{of(100), {}}); got != chunks.DefaultChunkSegmentSize {
		t.Errorf("with a source of unknown size: segments of %d bytes, want the default", got)
	}
}
