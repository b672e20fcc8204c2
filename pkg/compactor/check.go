package compactor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/chunkcheck"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// depth is how much of a block is read to check it.
type depth int

const (
	// ofBytes: series are sorted and each once, their chunks in order and as they were written, and no reader breaks.
	ofBytes depth = iota
	// ofSamples: those of every chunk can be read and are in order, too.
	ofSamples
	// ofEverything: labels, symbols and the lists of series are as they should be, too.
	ofEverything
)

// check reads a block from beginning to end. The TSDB's compactor would carry a damage on, or fail without naming
// the block. Errors: Internal if it is damaged, those of ctx.
func check(ctx context.Context, dir string, d depth) error {
	if err := block.Guard(func() error { return checkBlock(ctx, dir, d) }); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errs.New(errs.Internal, "block %s is corrupted: %w", filepath.Base(dir), err)
	}
	return nil
}

func checkBlock(ctx context.Context, dir string, d depth) (err error) {
	text, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	if err != nil {
		return err
	}
	meta, err := block.ParseMeta(text)
	if err != nil {
		return err
	}
	ix, err := block.OpenIndex(filepath.Join(dir, block.IndexFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	cr, err := chunks.NewDirReader(filepath.Join(dir, block.ChunksDir), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cr.Close()) }()
	k := &checker{ctx: ctx, depth: d, meta: &meta, index: ix, chunks: cr}
	k.hash.SetSeed(maphash.MakeSeed())
	if d == ofEverything {
		if err := k.symbols(); err != nil {
			return err
		}
	}
	if err := k.allSeries(); err != nil {
		return err
	}
	if d == ofEverything && ix.Version() != index.FormatV1 {
		return k.lists()
	}
	return nil
}

// checker checks one block.
type checker struct {
	ctx    context.Context //nolint:containedctx // Of one check.
	depth  depth
	meta   *block.Meta
	index  *block.IndexReader
	chunks *chunks.Reader

	// The sum of what every label of every series hashes to together with its series, and how many there are. The
	// lists must come to the same: they have each series under each of its labels, and nothing else.
	hash maphash.Hash
	sum  uint64
	n    uint64
}

// often is of how many steps one looks whether the check goes on.
const often = 1024

func (k *checker) symbols() error {
	last := ""
	it := k.index.Symbols()
	for n := 0; it.Next(); n++ {
		s := it.At()
		switch {
		case n > 0 && s <= last:
			return fmt.Errorf("symbol %q follows %q", cut(s), cut(last))
		case !utf8.ValidString(s):
			return fmt.Errorf("symbol %q is not valid UTF-8", cut(s))
		}
		last = s
	}
	return it.Err()
}

func (k *checker) allSeries() error {
	p, err := k.index.Refs(k.ctx)
	if err != nil {
		return err
	}
	var (
		builder labels.ScratchBuilder
		metas   []chunks.Meta
		last    labels.Labels
		n       uint64
	)
	for p.Next() {
		if n++; n%often == 0 && k.ctx.Err() != nil {
			return k.ctx.Err()
		}
		ref := p.At()
		if err := k.index.Series(ref, &builder, &metas); err != nil {
			return fmt.Errorf("series %d: %w", ref, err)
		}
		ls := builder.Labels()
		if n > 1 && labels.Compare(last, ls) >= 0 {
			return fmt.Errorf("series %s follows %s", cut(ls.String()), cut(last.String()))
		}
		last = ls
		if k.depth == ofEverything {
			if err := k.labels(ref, ls); err != nil {
				return fmt.Errorf("series %s: %w", cut(ls.String()), err)
			}
		}
		if err := k.allChunks(ls, metas); err != nil {
			return err
		}
	}
	if err := p.Err(); err != nil {
		return err
	}
	if k.meta.Stats.NumSeries != 0 && n != k.meta.Stats.NumSeries {
		return fmt.Errorf("it has %d series, its meta file says %d", n, k.meta.Stats.NumSeries)
	}
	return nil
}

// labels checks the labels of a series, and counts them.
func (k *checker) labels(ref storage.SeriesRef, ls labels.Labels) error {
	if ls.IsEmpty() {
		return errors.New("it has no labels")
	}
	k.count(1, ref, "", "") // in the list of all
	last := ""
	return ls.Validate(func(l labels.Label) error {
		switch {
		case l.Name == "" || l.Value == "":
			return fmt.Errorf("the label %q=%q has no name or no value", cut(l.Name), cut(l.Value))
		case l.Name <= last:
			return fmt.Errorf("label %q follows %q", cut(l.Name), cut(last))
		case !utf8.ValidString(l.Name) || !utf8.ValidString(l.Value):
			return fmt.Errorf("the label %q=%q is not valid UTF-8", cut(l.Name), cut(l.Value))
		}
		last = l.Name
		k.count(1, ref, l.Name, l.Value)
		return nil
	})
}

// count adds a series under a label, or takes it away if times is -1.
func (k *checker) count(times int64, ref storage.SeriesRef, name, value string) {
	var b [9]byte
	binary.BigEndian.PutUint64(b[:], uint64(ref))
	b[8] = 0xff // in no text
	k.hash.Reset()
	_, _ = k.hash.WriteString(name)
	_, _ = k.hash.Write(b[8:])
	_, _ = k.hash.WriteString(value)
	_, _ = k.hash.Write(b[:])
	k.sum += uint64(times) * k.hash.Sum64() //nolint:gosec // It wraps around, and back.
	k.n += uint64(times)                    //nolint:gosec // As above.
}

// lists checks the lists of series of each label.
func (k *checker) lists() error {
	lastName, lastValue, first := "", "", true
	err := k.index.Lists(func(n, v []byte, refs index.Postings) error {
		name, value := string(n), string(v)
		if !first && (name < lastName || name == lastName && value <= lastValue) {
			return fmt.Errorf("the list of the series with %q=%q follows that of %q=%q", cut(name), cut(value), cut(lastName), cut(lastValue))
		}
		lastName, lastValue, first = name, value, false
		last := storage.SeriesRef(0)
		for refs.Next() {
			ref := refs.At()
			if ref <= last {
				return fmt.Errorf("the list of the series with %q=%q is not sorted", cut(name), cut(value))
			}
			if last = ref; k.n == 0 {
				return fmt.Errorf("the list of the series with %q=%q has some too many", cut(name), cut(value))
			}
			if k.count(-1, ref, name, value); k.n%often == 0 && k.ctx.Err() != nil {
				return k.ctx.Err()
			}
		}
		return refs.Err()
	})
	if err == nil && (k.n != 0 || k.sum != 0) {
		err = errors.New("its lists of series by label are not those of its series")
	}
	return err
}

func (k *checker) allChunks(ls labels.Labels, metas []chunks.Meta) error {
	if len(metas) == 0 {
		return fmt.Errorf("series %s has no chunks", cut(ls.String()))
	}
	for i, m := range metas {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("chunk %d of series %s: %w", i, cut(ls.String()), fmt.Errorf(format, args...))
		}
		if i%often == often-1 && k.ctx.Err() != nil {
			return k.ctx.Err()
		}
		switch {
		case m.MinTime > m.MaxTime, i > 0 && m.MinTime <= metas[i-1].MaxTime:
			return wrong("from %d to %d it is out of order", m.MinTime, m.MaxTime)
		case m.MinTime < k.meta.MinTime, m.MaxTime >= k.meta.MaxTime:
			return wrong("from %d to %d it is outside the block", m.MinTime, m.MaxTime)
		}
		c, _, err := k.chunks.ChunkOrIterable(m) // which compares the checksum
		if err != nil {
			return wrong("%w", err)
		}
		if err := k.content(c, m); err != nil {
			return wrong("%w", err)
		}
	}
	return nil
}

// content checks what a chunk holds. Nobody may take what chunks of histograms announce at its word: their readers
// make room for it.
func (k *checker) content(c chunkenc.Chunk, m chunks.Meta) error {
	const header = 2
	switch {
	case k.depth >= ofSamples:
		return checkSamples(c, m.MinTime, m.MaxTime)
	case c.Encoding() == chunkenc.EncXOR && len(c.Bytes()) >= header:
		return nil
	}
	_, err := chunkcheck.Open(c.Encoding(), c.Bytes())
	return err
}

// checkSamples reads the samples of a chunk.
func checkSamples(c chunkenc.Chunk, mint, maxt int64) error {
	n, last := 0, int64(0)
	err := chunkcheck.Each(c.Encoding(), c.Bytes(), func(s *chunkcheck.Sample) error {
		switch {
		case s.T < mint || s.T > maxt:
			return fmt.Errorf("a sample at %d is outside of %d to %d", s.T, mint, maxt)
		case n > 0 && s.T <= last:
			return fmt.Errorf("a sample at %d follows one at %d", s.T, last)
		}
		n++
		last = s.T
		var err error
		if s.H != nil && s.Kind == chunkenc.ValHistogram {
			err = s.H.Validate()
		} else if s.FH != nil && s.Kind == chunkenc.ValFloatHistogram {
			err = s.FH.Validate()
		}
		if err != nil {
			return fmt.Errorf("the histogram at %d: %w", s.T, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return errors.New("it has no samples")
	case n != c.NumSamples():
		return fmt.Errorf("%d samples, its header says %d", n, c.NumSamples())
	}
	return nil
}

// cut shortens a text for a message.
func cut(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
