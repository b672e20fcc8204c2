package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// checkSeries reads every series and chunk of b.
func checkSeries(ctx context.Context, b *tsdb.Block) (err error) {
	ix, err := b.Index()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	cr, err := b.Chunks()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cr.Close()) }()
	name, value := index.AllPostingsKey()
	p, err := ix.Postings(ctx, name, value)
	if err != nil {
		return err
	}
	var (
		builder labels.ScratchBuilder
		metas   []chunks.Meta
		last    labels.Labels
		n       uint64
		meta    = b.Meta()
	)
	for p.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := ix.Series(p.At(), &builder, &metas); err != nil {
			return fmt.Errorf("series %d: %w", p.At(), err)
		}
		ls := builder.Labels()
		if n > 1 && labels.Compare(last, ls) >= 0 {
			return fmt.Errorf("series %s follows %s", ls, last)
		}
		last = ls
		if err := checkChunks(cr, ls, metas, &meta); err != nil {
			return err
		}
	}
	if err := p.Err(); err != nil {
		return err
	}
	if meta.Stats.NumSeries != 0 && n != meta.Stats.NumSeries {
		return fmt.Errorf("it has %d series, its meta file says %d", n, meta.Stats.NumSeries)
	}
	return nil
}

func checkChunks(cr tsdb.ChunkReader, ls labels.Labels, metas []chunks.Meta, meta *tsdb.BlockMeta) error {
	if len(metas) == 0 {
		return fmt.Errorf("series %s has no chunks", ls)
	}
	for i, m := range metas {
		switch {
		case m.MinTime > m.MaxTime, i > 0 && m.MinTime <= metas[i-1].MaxTime:
			return fmt.Errorf("chunk %d of series %s from %d to %d is out of order", i, ls, m.MinTime, m.MaxTime)
		case m.MinTime < meta.MinTime, m.MaxTime >= meta.MaxTime:
			return fmt.Errorf("chunk %d of series %s from %d to %d is outside the block", i, ls, m.MinTime, m.MaxTime)
		}
		if _, _, err := cr.ChunkOrIterable(m); err != nil { // which compares the checksum
			return fmt.Errorf("chunk %d of series %s: %w", i, ls, err)
		}
	}
	return nil
}

// quiet keeps the TSDB's progress lines out of the log.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(warnings{log.Handler()}) }

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
