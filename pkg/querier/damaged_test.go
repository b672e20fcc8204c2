package querier

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// A panic of a chunk's reader would end a ruler, which reads series beside its engine, and would raise the alarm of
// operators at each query otherwise.
func TestChunksThatMakeTheirReaderPanicAreErrors(t *testing.T) {
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	h := &histogram.Histogram{Schema: 20, Count: 3, Sum: 9, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}, {Offset: -1, Length: 1}}, PositiveBuckets: []int64{1, 0, 0}}
	if _, _, _, err := app.AppendHistogram(nil, 0, 1000, h, false); err != nil {
		t.Fatal(err)
	}
	good := chunkenc.NewXORChunk()
	for what, one := range map[string]struct {
		encoding chunkenc.Encoding
		data     []byte
		want     string
	}{
		"floats":         {chunkenc.EncXOR, good.Bytes(), ""},
		"a finer schema": {chunkenc.EncHistogram, c.Bytes(), "corrupted"},
		"a cut header":   {chunkenc.EncFloatHistogram, []byte{0, 1}, "corrupted"},
		"an encoding":    {77, good.Bytes(), "corrupted"},
	} {
		_, _, err := takeChunks(nil, []*ingesterpb.Chunk{{Encoding: uint32(one.encoding), Data: one.data}})
		if one.want == "" && err != nil || one.want != "" && (errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), one.want)) {
			t.Errorf("%s: %v, want %q", what, err, one.want)
		}
	}
}
