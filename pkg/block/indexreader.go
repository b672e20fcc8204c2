package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// What an IndexReader reads of a series.
const (
	// fileSeriesText is how many bytes the names and values of its labels have together: an index can name the
	// same long symbol again and again.
	fileSeriesText = 1 << 20
	// fileEntry is how long what the index says of it is, most of which is about chunks.
	fileEntry = 8 << 20
)

// Guard calls f, which reads a block that anybody may have made, and makes a panic an error: the TSDB's readers
// panic for some damaged blocks. Errors: Internal for a panic, those of f.
func Guard(f func() error) error { return faults(f) }

// IndexReader is an index in a file that anybody may have made. What it announces is looked at before room is made
// for it. Its methods may panic if it is damaged, which is for Guard. It is for one goroutine.
type IndexReader struct {
	reader  *index.Reader
	bytes   heldBytes
	toc     *index.TOC
	symbols *index.Symbols
	decoder index.Decoder
	text    int // bytes of labels of the series being read
	file    *fileutil.MmapFile
}

// heldBytes is an index in memory.
type heldBytes []byte

func (b heldBytes) Len() int                  { return len(b) }
func (b heldBytes) Range(from, to int) []byte { return b[from:to] }

// OpenIndex opens an index. The caller closes it. Errors: Internal if it is damaged.
func OpenIndex(path string) (*IndexReader, error) {
	file, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, errs.New(errs.Internal, "open the index: %w", err)
	}
	f := &IndexReader{bytes: file.Bytes(), file: file}
	if err := Guard(f.open); err != nil {
		return nil, errs.New(errs.Internal, "open the index: %w", errors.Join(err, file.Close()))
	}
	return f, nil
}

func (f *IndexReader) open() (err error) {
	if f.toc, err = index.NewTOCFromByteSlice(f.bytes); err != nil {
		return err
	}
	if err := symbolsFit(f.bytes, f.toc.Symbols); err != nil {
		return err
	}
	if f.reader, err = index.NewReader(f.bytes, index.DecodePostingsRaw); err != nil {
		return err
	}
	if f.symbols, err = index.NewSymbols(f.bytes, f.reader.Version(), int(f.toc.Symbols)); err != nil { //nolint:gosec // It was read from there.
		return err
	}
	f.decoder = index.Decoder{LookupSymbol: f.lookup, DecodePostings: index.DecodePostingsRaw}
	return nil
}

// symbolsFit checks that the table of symbols at byte at has room for as many as it announces.
func symbolsFit(b heldBytes, at uint64) error {
	const heads = 8 // how long the table is, and how many symbols it has
	if at > uint64(len(b)) || uint64(len(b))-at < heads {
		return errTable
	}
	head := b[at : at+heads]
	if size, n := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:]); n > size || uint64(size) > uint64(len(b)) {
		return errTable
	}
	return nil
}

// Close closes the file.
func (f *IndexReader) Close() error { return f.file.Close() }

// Version is the version of the format.
func (f *IndexReader) Version() int { return f.reader.Version() }

// Refs are the series, as far as the list of all names them.
func (f *IndexReader) Refs(ctx context.Context) (index.Postings, error) {
	name, value := index.AllPostingsKey()
	return f.reader.Postings(ctx, name, value)
}

// Symbols are the texts of the index.
func (f *IndexReader) Symbols() index.StringIter { return f.symbols.Iter() }

// lookup returns a symbol.
func (f *IndexReader) lookup(_ context.Context, symbol uint32) (string, error) {
	s, err := f.symbols.Lookup(symbol)
	if f.text += len(s); err == nil && f.text > fileSeriesText {
		err = fmt.Errorf("its labels have more than %d bytes", fileSeriesText)
	}
	return s, err
}

// Series reads the labels and chunks of a series.
func (f *IndexReader) Series(ref storage.SeriesRef, builder *labels.ScratchBuilder, metas *[]chunks.Meta) error {
	align := 16
	if f.Version() == index.FormatV1 {
		align = 1
	}
	d := encoding.NewDecbufUvarintAt(f.bytes, int(ref)*align, castagnoli) //nolint:gosec // References have 32 bits.
	if err := d.Err(); err != nil {
		return err
	}
	if d.Len() > fileEntry {
		return fmt.Errorf("its entry has %d bytes, %d can be read", d.Len(), fileEntry)
	}
	f.text = 0
	return f.decoder.Series(d.Get(), builder, metas)
}

// Lists calls each for the list of series of every label, in the order of the index. The texts are valid until
// the file is closed.
func (f *IndexReader) Lists(each func(name, value []byte, refs index.Postings) error) error {
	return index.ReadPostingsOffsetTable(f.bytes, f.toc.PostingsTable, func(name, value []byte, at uint64, _ int) error {
		_, refs, err := index.DecodePostingsRaw(encoding.NewDecbufAt(f.bytes, int(at), castagnoli)) //nolint:gosec // What lies outside is for Guard.
		if err != nil {
			return fmt.Errorf("list of the series with %q=%q: %w", cutText(name), cutText(value), err)
		}
		return each(name, value, refs)
	})
}

// cutText shortens a text for a message.
func cutText(b []byte) []byte { return b[:min(len(b), 200)] }
