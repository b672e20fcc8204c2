package head

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Block is one local block.
type Block struct {
	ID  ulid.ULID
	Dir string
	// MinTime <= t < MaxTime, in milliseconds.
	MinTime, MaxTime int64
	OutOfOrder       bool
	Series, Samples  uint64
}

// CompactDue says whether a whole block range lies far enough behind the newest sample.
func (h *Head) CompactDue() bool {
	mint, maxt := h.MinTime(), h.MaxTime()
	return mint != math.MaxInt64 && maxt != math.MinInt64 && maxt-mint > rangeMillis/2*3
}

// Compact cuts what is due into blocks, and late samples with it, and drops it from memory; with
// force it cuts everything that is in memory now, while appends of newer samples go on. It returns the number of new blocks, which are on
// disk, fsynced, when it returns. Calls must not overlap.
func (h *Head) Compact(ctx context.Context, force bool) (int, error) {
	before := h.made.Load()
	cut := false
	for h.CompactDue() {
		if err := ctx.Err(); err != nil {
			return h.madeSince(before), err
		}
		mint := h.MinTime()
		end := blockEnd(mint)
		// Nothing new can land below end: that is more than half a range behind the newest
		// sample. Appenders that started before may still be at it, and even land below mint.
		h.db.Head().WaitForAppendersOverlapping(end - 1)
		if h.MinTime() != mint {
			continue
		}
		rh := tsdb.NewRangeHeadWithIsolationDisabled(h.db.Head(), mint, end-1)
		if err := h.cutRange(rh); err != nil {
			return h.madeSince(before), fmt.Errorf("cut block up to %d: %w", end, err)
		}
		cut = true
	}
	if force {
		if err := h.cutAll(ctx); err != nil {
			return h.madeSince(before), err
		}
	}
	if cut || force {
		if err := h.cutLate(ctx); err != nil {
			return h.madeSince(before), fmt.Errorf("cut late samples: %w", err)
		}
	}
	return h.madeSince(before), nil
}

// cutRange cuts a range into a block and drops it from memory.
func (h *Head) cutRange(r *tsdb.RangeHead) error {
	defer h.resumeAppends()
	return h.db.CompactHead(r)
}

// noCut is before the time of any sample.
const noCut = math.MinInt64

// cutAll cuts the in-order part of the head as it is now, one block range after the other.
func (h *Head) cutAll(ctx context.Context) error {
	// Nothing as old as what is cut may land from here on: what the blocks miss would be dropped.
	h.flush.Lock()
	maxt := h.MaxTime() // each cut moves it on, also when only late samples are left
	h.cutting.Store(min(maxt, math.MaxInt64-1) + 1)
	h.flush.Unlock()
	defer h.cutting.Store(noCut)
	for mint := h.MinTime(); h.NumSeries() > 0 && mint <= maxt; mint = h.MinTime() {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := min(blockEnd(mint)-1, maxt)
		if err := h.cutRange(tsdb.NewRangeHead(h.db.Head(), mint, end)); err != nil {
			return fmt.Errorf("cut block up to %d: %w", end, err)
		}
		if h.MinTime() <= mint {
			return fmt.Errorf("cut block up to %d: the head did not move on", end)
		}
	}
	return nil
}

// CutSeries cuts the named series into blocks and drops them from memory, while appends to these
// and others go on: those that are appended to meanwhile stay. It returns how many series left
// memory. Calls must not overlap with those of Compact or each other.
func (h *Head) CutSeries(ctx context.Context, refs []Ref) (int, error) {
	// Series with late samples could not leave.
	if err := h.cutLate(ctx); err != nil {
		return 0, fmt.Errorf("cut late samples: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	gone := h.gone.Load()
	list := make([]storage.SeriesRef, len(refs))
	for k, r := range refs {
		list[k] = storage.SeriesRef(r)
	}
	defer h.resumeAppends()
	if err := h.db.CompactSelectedSeries(list); err != nil {
		return 0, fmt.Errorf("cut %d series: %w", len(refs), err)
	}
	return int(h.gone.Load() - gone), nil
}

// blockEnd is the end of the aligned block range that holds t.
func blockEnd(t int64) int64 { return blockStart(t, rangeMillis) + rangeMillis }

// madeSince is how many blocks were made since that many were.
func (h *Head) madeSince(before int64) int { return int(h.made.Load() - before) }

// Blocks returns the local blocks, oldest first.
func (h *Head) Blocks() []Block { return h.blocks.list() }

// DropBlocks deletes local blocks. They leave Blocks at once and the disk at the next Sweep or cut.
func (h *Head) DropBlocks(ids ...ulid.ULID) { h.blocks.drop(ids) }

// quiet keeps the TSDB's progress lines out of the log of a process with many tenants.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(minLevel{log.Handler()})
}

type minLevel struct{ slog.Handler }

func (m minLevel) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && m.Handler.Enabled(ctx, l)
}

func (m minLevel) WithAttrs(attrs []slog.Attr) slog.Handler {
	return minLevel{m.Handler.WithAttrs(attrs)}
}

func (m minLevel) WithGroup(name string) slog.Handler { return minLevel{m.Handler.WithGroup(name)} }
