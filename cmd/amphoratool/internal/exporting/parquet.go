package exporting

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/remoteread"
)

const (
	// groupRows and groupBytes bound a row group, which is in memory until it is whole. Bytes are those of the
	// rows before they are encoded.
	groupRows  = 1 << 18
	groupBytes = 64 << 20
	// batchRows is how many rows are handed over at once.
	batchRows = 256
)

// record is the columns of a file. A stale marker has neither value nor histogram.
type record struct {
	Metric    string            `parquet:"metric,dict"`
	Labels    map[string]string `parquet:"labels" parquet-key:",dict" parquet-value:",dict"`
	Timestamp int64             `parquet:"timestamp,timestamp(millisecond),delta"`
	Value     *float64          `parquet:"value"`
	Histogram *native           `parquet:"histogram"`
}

// native is a native histogram. Integer counts are numbers, too.
type native struct {
	Count         float64  `parquet:"count"`
	Sum           float64  `parquet:"sum"`
	Schema        int32    `parquet:"schema"`
	ZeroThreshold float64  `parquet:"zero_threshold"`
	Gauge         bool     `parquet:"gauge"`
	Buckets       []bucket `parquet:"buckets,list"`
}

// bucket is one of them, from the lowest to the highest.
type bucket struct {
	Lower float64 `parquet:"lower"`
	Upper float64 `parquet:"upper"`
	Count float64 `parquet:"count"`
}

// The leaves of record, in its order.
const (
	metricColumn = iota
	keyColumn
	labelColumn
	timeColumn
	valueColumn
	countColumn
	sumColumn
	schemaColumn
	zeroColumn
	gaugeColumn
	lowerColumn
	upperColumn
	bucketColumn
	columns
)

// table writes rows into row groups.
type table struct {
	w     *parquet.GenericWriter[record]
	head  parquet.Row // what all rows of a series begin with
	width int         // bytes of that
	rows  []parquet.Row
	all   int64 // rows that were written
	group int   // rows of the group
	bytes int   // of the group
}

func newTable(out io.Writer) *table {
	w := parquet.NewGenericWriter[record](out, parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}), parquet.CreatedBy("amphoratool", "", ""))
	return &table{w: w, rows: make([]parquet.Row, 0, batchRows)}
}

// copyFrames writes the samples from start to end that the chunks in the frames of body have. It returns how
// many those are.
func copyFrames(out io.Writer, body io.Reader, start, end int64, omit bool) (int64, error) {
	t := newTable(out)
	frames := remoteread.NewFrames(body)
	for {
		frame, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		for _, s := range frame.ChunkedSeries {
			t.series(s.Labels)
			for _, c := range s.Chunks {
				if err := t.chunk(c, start, end, omit); err != nil {
					return 0, fmt.Errorf("a chunk of %s: %w", t.head[metricColumn].String(), err)
				}
			}
		}
	}
	if err := t.flush(); err != nil {
		return 0, err
	}
	return t.all, t.w.Close()
}

// series begins one.
func (t *table) series(ls []prompb.Label) {
	metric := ""
	others := make([]prompb.Label, 0, len(ls))
	t.width = 0
	for _, l := range ls {
		t.width += len(l.Name) + len(l.Value)
		if l.Name == "__name__" {
			metric = l.Value
		} else {
			others = append(others, l)
		}
	}
	t.head = append(t.head[:0], parquet.ByteArrayValue([]byte(metric)).Level(0, 0, metricColumn))
	t.head = appendTexts(t.head, others, keyColumn, func(l prompb.Label) string { return l.Name })
	t.head = appendTexts(t.head, others, labelColumn, func(l prompb.Label) string { return l.Value })
}

// appendTexts appends one column of the labels.
func appendTexts(row parquet.Row, ls []prompb.Label, column int, text func(prompb.Label) string) parquet.Row {
	if len(ls) == 0 {
		return append(row, parquet.NullValue().Level(0, 0, column))
	}
	for i, l := range ls {
		row = append(row, parquet.ByteArrayValue([]byte(text(l))).Level(min(i, 1), 1, column))
	}
	return row
}

// chunk writes the samples of c.
func (t *table) chunk(c prompb.Chunk, start, end int64, omit bool) error {
	chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
	if err != nil {
		return err
	}
	it := chunk.Iterator(nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		at := it.AtT()
		if at < start || at > end || omit && kind != chunkenc.ValFloat {
			continue
		}
		row := append(t.next(), parquet.Int64Value(at).Level(0, 0, timeColumn))
		switch kind {
		case chunkenc.ValFloat:
			_, v := it.At()
			row = appendNoHistogram(appendValue(row, v))
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			row = appendHistogram(row, h.ToFloat(nil))
		default:
			_, h := it.AtFloatHistogram(nil)
			row = appendHistogram(row, h)
		}
		if err := t.add(row); err != nil {
			return err
		}
	}
	return it.Err()
}

// next returns a row with the labels of the series, in memory that was used before.
func (t *table) next() parquet.Row {
	row := t.rows[:len(t.rows)+1][len(t.rows)]
	return append(row[:0], t.head...)
}

// add takes a row, and ends a group that is large enough.
func (t *table) add(row parquet.Row) error {
	t.rows = append(t.rows, row)
	t.group++
	t.bytes += t.width + 8*(len(row)-len(t.head))
	if full := t.group >= groupRows || t.bytes >= groupBytes; !full && len(t.rows) < batchRows {
		return nil
	} else if err := t.flush(); err != nil || !full {
		return err
	}
	t.group, t.bytes = 0, 0
	return t.w.Flush()
}

// flush hands the rows over.
func (t *table) flush() error {
	n, err := t.w.WriteRows(t.rows)
	t.all += int64(n)
	t.rows = t.rows[:0]
	return err
}

func appendValue(row parquet.Row, v float64) parquet.Row {
	if value.IsStaleNaN(v) {
		return append(row, parquet.NullValue().Level(0, 0, valueColumn))
	}
	return append(row, parquet.DoubleValue(v).Level(0, 1, valueColumn))
}

func appendNoHistogram(row parquet.Row) parquet.Row {
	for column := countColumn; column < columns; column++ {
		row = append(row, parquet.NullValue().Level(0, 0, column))
	}
	return row
}

func appendHistogram(row parquet.Row, h *histogram.FloatHistogram) parquet.Row {
	row = append(row, parquet.NullValue().Level(0, 0, valueColumn))
	if value.IsStaleNaN(h.Sum) {
		return appendNoHistogram(row)
	}
	row = append(row,
		parquet.DoubleValue(h.Count).Level(0, 1, countColumn),
		parquet.DoubleValue(h.Sum).Level(0, 1, sumColumn),
		parquet.Int32Value(h.Schema).Level(0, 1, schemaColumn),
		parquet.DoubleValue(h.ZeroThreshold).Level(0, 1, zeroColumn),
		parquet.BooleanValue(h.CounterResetHint == histogram.GaugeType).Level(0, 1, gaugeColumn))
	var all []bucket
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		all = append(all, bucket{b.Lower, b.Upper, b.Count})
	}
	for column, of := range []func(bucket) float64{
		func(b bucket) float64 { return b.Lower }, func(b bucket) float64 { return b.Upper }, func(b bucket) float64 { return b.Count },
	} {
		if len(all) == 0 {
			row = append(row, parquet.NullValue().Level(0, 1, lowerColumn+column))
		}
		for i, b := range all {
			row = append(row, parquet.DoubleValue(of(b)).Level(min(i, 1), 2, lowerColumn+column))
		}
	}
	return row
}
