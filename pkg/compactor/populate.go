package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// part says which series of the source blocks a new block gets, and without which samples.
type part struct {
	shard, shards uint64 // of shards, if there are any, only the series of shard
	gone          tombstone.Set
}

// PopulateBlock lets the TSDB fill a block with p's part of the source blocks.
func (p part) PopulateBlock(ctx context.Context, m *tsdb.CompactorMetrics, log *slog.Logger, pool chunkenc.Pool,
	merge storage.VerticalChunkSeriesMergeFunc, blocks []tsdb.BlockReader, meta *tsdb.BlockMeta, iw tsdb.IndexWriter, cw tsdb.ChunkWriter, postings tsdb.IndexReaderPostingsFunc) error {
	views := make([]tsdb.BlockReader, len(blocks))
	for i, b := range blocks {
		v, err := newView(ctx, b, p, postings)
		if err != nil {
			return fmt.Errorf("look through block %s: %w", b.Meta().ULID, err)
		}
		views[i] = v
	}
	ofView := func(ctx context.Context, ix tsdb.IndexReader) index.Postings {
		if v, ok := ix.(viewIndex); ok {
			return index.NewListPostings(v.view.refs)
		}
		return postings(ctx, ix)
	}
	return tsdb.DefaultBlockPopulator{}.PopulateBlock(ctx, m, log, pool, merge, views, meta, iw, cw, ofView)
}

// view is a block as a part sees it.
type view struct {
	tsdb.BlockReader
	refs    []storage.SeriesRef // in the order of their labels
	symbols []string            // of these series, sorted; nil: all of the block
	gone    *tombstones.MemTombstones
}

func newView(ctx context.Context, b tsdb.BlockReader, p part, postings tsdb.IndexReaderPostingsFunc) (_ *view, err error) {
	v := &view{BlockReader: b, gone: tombstones.NewMemTombstones()}
	ix, err := b.Index()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	m := v.Meta()
	gone := p.gone.In(m.MinTime, m.MaxTime-1)
	choosing := p.shards > 0 || !gone.Empty()
	symbols := map[string]struct{}{}
	var builder labels.ScratchBuilder
	all := postings(ctx, ix)
	for all.Next() {
		ref := all.At()
		if choosing {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := ix.Series(ref, &builder, nil); err != nil {
				return nil, err
			}
			ls := builder.Labels()
			if p.shards > 0 && labels.StableHash(ls)%p.shards != p.shard {
				continue
			}
			hidden := gone.Of(ls)
			if tombstone.Covers(hidden, m.MinTime, m.MaxTime-1) {
				continue
			}
			v.gone.AddInterval(ref, hidden...)
			ls.Range(func(l labels.Label) {
				note(symbols, l.Name)
				note(symbols, l.Value)
			})
		}
		v.refs = append(v.refs, ref)
	}
	if choosing {
		v.symbols = make([]string, 0, len(symbols))
		for s := range symbols {
			v.symbols = append(v.symbols, s)
		}
		slices.Sort(v.symbols)
	}
	return v, all.Err()
}

// note remembers a symbol. Labels of a series share one string, which must not be kept for it.
func note(symbols map[string]struct{}, s string) {
	if _, ok := symbols[s]; !ok {
		symbols[string([]byte(s))] = struct{}{}
	}
}

// Index returns the block's index with the symbols of the view.
func (v *view) Index() (tsdb.IndexReader, error) {
	ix, err := v.BlockReader.Index()
	return viewIndex{ix, v}, err
}

// Tombstones returns what is left out of series of which something stays.
func (v *view) Tombstones() (tombstones.Reader, error) { return v.gone, nil }

// viewIndex is the index of a view.
type viewIndex struct {
	tsdb.IndexReader
	view *view
}

// Symbols returns those of the view, so that a shard does not carry the names of all others.
func (v viewIndex) Symbols() index.StringIter {
	if v.view.symbols == nil {
		return v.IndexReader.Symbols()
	}
	return &stringIter{left: v.view.symbols}
}

type stringIter struct {
	left []string
	at   string
}

func (s *stringIter) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

func (s *stringIter) At() string { return s.at }
func (s *stringIter) Err() error { return nil }

// minSegment is the least size of a segment of chunks.
const minSegment = 1 << 20

// segmentBytes is the size of segments for chunks of the sources. The TSDB takes the room of a whole segment
// on the disk before it writes the first chunk, 512 MiB by default, so it is no larger than it may have
// to be. Chunks that are merged grow by a little at most; what does not fit begins another segment.
func segmentBytes(sources []block.Meta) int64 {
	n := int64(0)
	for _, m := range sources {
		known := false
		for _, f := range m.Thanos.Files {
			if strings.HasPrefix(f.RelPath, block.ChunksDir+"/") {
				n += f.SizeBytes
				known = true
			}
		}
		if !known {
			return chunks.DefaultChunkSegmentSize
		}
	}
	return min(max(n+n/4, minSegment), chunks.DefaultChunkSegmentSize)
}

// newTSDBCompactor returns the TSDB's compactor, which merges overlapping blocks sample by sample, into
// segments of so many bytes.
func newTSDBCompactor(ctx context.Context, log *slog.Logger, segment int64) (*tsdb.LeveledCompactor, error) {
	return tsdb.NewLeveledCompactorWithOptions(ctx, nil, log, []int64{tsdb.DefaultBlockDuration}, nil, tsdb.LeveledCompactorOptions{
		MaxBlockChunkSegmentSize:    segment,
		EnableOverlappingCompaction: true,
	})
}
