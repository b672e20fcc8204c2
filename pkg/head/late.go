package head

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
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

// newCompactor stands between the TSDB and its compactor.
func (h *Head) newCompactor(ctx context.Context, r prometheus.Registerer, l *slog.Logger, ranges []int64, pool chunkenc.Pool, _ *tsdb.Options) (tsdb.Compactor, error) {
	c, err := tsdb.NewLeveledCompactorWithOptions(ctx, r, l, ranges, pool, tsdb.LeveledCompactorOptions{
		PD: tsdb.DefaultPostingsDecoderFactory, FloatChunkEncoding: func() chunkenc.Encoding { return chunkenc.EncXOR },
	})
	if err != nil {
		return nil, err
	}
	return compactor{c, h}, nil
}

type compactor struct {
	tsdb.Compactor
	h *Head
}

// Write is part of tsdb.Compactor. For late samples the TSDB calls it for one block range after
// the other.
func (c compactor) Write(dest string, b tsdb.BlockReader, mint, maxt int64, base *tsdb.BlockMeta) ([]ulid.ULID, error) {
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
		return c.Compactor.Write(dest, of.CloneForTimeRange(day, day+dayMillis-1), day, day+dayMillis, base)
	}
	return c.Compactor.Write(dest, b, mint, maxt, base)
}

// nothing is the end of a range in which no sample lies.
const nothing = math.MinInt64

// Sweep takes dropped blocks off the disk, once the queries that read them are done. It must not
// overlap with a cut.
func (h *Head) Sweep(ctx context.Context) error {
	if len(h.dropped()) == 0 {
		return nil
	}
	// The TSDB looks at its directory after each cut, also of nothing.
	if h.MinTime() == math.MaxInt64 {
		h.sawLate.Store(true)
		return h.cutLate(ctx)
	}
	return h.db.CompactHead(tsdb.NewRangeHead(h.db.Head(), nothing, nothing))
}

// blockStart is the start of the aligned range of the given length that holds t.
func blockStart(t, length int64) int64 {
	start := t - t%length
	if t < 0 && t%length != 0 {
		start -= length
	}
	return start
}
