package head

import (
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

const dayMillis = int64(24 * time.Hour / time.Millisecond)

// lateCut is the cut of late samples that runs. Cuts do not overlap.
type lateCut struct {
	gathered func()         // called when the TSDB knows what it will cut
	days     map[int64]bool // starts of days that are in a block
}

// cutLate cuts late samples into blocks. Appends wait while the TSDB gathers what there is: a
// series whose first late samples came meanwhile could be left out of the blocks, and the samples
// dropped with those that are in.
func (h *Head) cutLate(ctx context.Context) (err error) {
	if !h.sawLate.Load() {
		return nil
	}
	h.flush.Lock()
	h.lateCut = lateCut{gathered: sync.OnceFunc(h.flush.Unlock), days: map[int64]bool{}}
	defer h.lateCut.gathered()
	h.forgetOrder()
	h.sawLate.Store(false)
	defer func() {
		if err != nil {
			h.sawLate.Store(true)
		}
	}()
	defer recoverDisk(&err)
	return h.db.CompactOOOHead(ctx)
}

const (
	// minSegment is the least size of a segment of chunks, in bytes.
	minSegment = 1 << 20
	// segmentOfSeries is room for the chunks of a series: some two thousand samples, or a few hundred
	// native histograms.
	segmentOfSeries = 4 << 10
)

// segmentBytes is the size of the segments for the chunks of so many series. The TSDB takes the room of a
// whole segment on the disk before it writes the first chunk, 512 MiB by default, which small heads do
// not need, and for which a disk has no room that must be freed by a cut. What does not fit begins
// another segment.
func segmentBytes(series uint64) int64 {
	if series >= chunks.DefaultChunkSegmentSize/segmentOfSeries {
		return chunks.DefaultChunkSegmentSize
	}
	return max(int64(series)*segmentOfSeries, minSegment)
}

// newCompactor gives the TSDB the compactor of h.
func (h *Head) newCompactor(ctx context.Context, r prometheus.Registerer, l *slog.Logger, ranges []int64, pool chunkenc.Pool, _ *tsdb.Options) (tsdb.Compactor, error) {
	return &compactor{h: h, open: func() (*tsdb.LeveledCompactor, error) {
		return tsdb.NewLeveledCompactorWithOptions(ctx, r, l, ranges, pool, tsdb.LeveledCompactorOptions{
			MaxBlockChunkSegmentSize: segmentBytes(h.NumSeries()),
			PD:                       tsdb.DefaultPostingsDecoderFactory, FloatChunkEncoding: func() chunkenc.Encoding { return chunkenc.EncXOR },
		})
	}}, nil
}

// compactor stands between the TSDB and the TSDB's own compactor, which is made for each cut: it
// takes more memory than a small head has use for in between.
type compactor struct {
	h    *Head
	open func() (*tsdb.LeveledCompactor, error)
}

// Plan is part of tsdb.Compactor. Blocks are merged elsewhere.
func (*compactor) Plan(string) ([]string, error) { return nil, nil }

// Compact is part of tsdb.Compactor. Nothing is planned, so nothing is asked for.
func (*compactor) Compact(string, []string, []*tsdb.Block) ([]ulid.ULID, error) { return nil, nil }

// Write is part of tsdb.Compactor. The block joins the head's own list before the TSDB drops its
// samples from memory.
func (c *compactor) Write(_ string, b tsdb.BlockReader, mint, maxt int64, base *tsdb.BlockMeta) ([]ulid.ULID, error) {
	ids, err := c.cut(b, mint, maxt, base)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := c.h.blocks.add(filepath.Join(c.h.blocks.dir, id.String())); err != nil {
			return nil, err
		}
		c.h.made.Add(1)
	}
	// What follows is that the TSDB drops it from memory. Late samples have a file by now.
	if _, late := b.(*tsdb.OOOCompactionHead); !late {
		if err := c.h.pauseAppends(); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// cut writes one block, or none. For late samples the TSDB asks for one block range after the other.
func (c *compactor) cut(b tsdb.BlockReader, mint, maxt int64, base *tsdb.BlockMeta) ([]ulid.ULID, error) {
	to, err := c.open()
	if err != nil {
		return nil, err
	}
	dest := c.h.blocks.dir
	switch of := b.(type) {
	case *tsdb.RangeHead:
		if of.MaxTime() == nothing {
			return nil, nil
		}
	case *tsdb.OOOCompactionHead:
		cut := &c.h.lateCut
		cut.gathered()
		if !c.h.o.LargeLateBlocks {
			break
		}
		day := blockStart(mint, dayMillis)
		if day+dayMillis > blockStart(c.h.o.Now().UnixMilli(), dayMillis) {
			break
		}
		if cut.days[day] {
			return nil, nil
		}
		cut.days[day] = true
		return to.Write(dest, of.CloneForTimeRange(day, day+dayMillis-1), day, day+dayMillis, base)
	}
	return to.Write(dest, b, mint, maxt, base)
}

// nothing is the end of a range in which no sample lies.
const nothing = math.MinInt64

// Sweep takes dropped blocks off the disk and closes those that were not read lately, both as far
// as no query reads them.
func (h *Head) Sweep() error { return h.blocks.sweep() }

// blockStart is the start of the aligned range of the given length that holds t.
func blockStart(t, length int64) int64 {
	start := t - t%length
	if t < 0 && t%length != 0 {
		start -= length
	}
	return start
}
