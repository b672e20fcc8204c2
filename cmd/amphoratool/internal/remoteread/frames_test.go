package remoteread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// frame packs a message as servers do.
func frame(m *prompb.ChunkedReadResponse) []byte {
	data, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	out := binary.AppendUvarint(nil, uint64(len(data)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, data...)
}

func someFrames() []byte {
	chunk := chunkenc.NewXORChunk()
	app, err := chunk.Appender()
	if err != nil {
		panic(err)
	}
	for i := range int64(3) {
		app.Append(0, 1000*i, float64(i))
	}
	series := func(name string) *prompb.ChunkedReadResponse {
		return &prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{
			Labels: []prompb.Label{{Name: "__name__", Value: name}},
			Chunks: []prompb.Chunk{{MaxTimeMs: 2000, Type: prompb.Chunk_XOR, Data: chunk.Bytes()}},
		}}}
	}
	return append(frame(series("a")), frame(series("b"))...)
}

func TestEverySampleOfAStreamComesInOrder(t *testing.T) {
	var got bytes.Buffer
	err := streamed(NewFrames(bytes.NewReader(someFrames())), func(ls labels.Labels, s sample) error {
		s.line(&got, ls)
		return nil
	})
	want := "{__name__=\"a\"} 0 0\n{__name__=\"a\"} 1 1000\n{__name__=\"a\"} 2 2000\n{__name__=\"b\"} 0 0\n{__name__=\"b\"} 1 1000\n{__name__=\"b\"} 2 2000\n"
	if err != nil || got.String() != want {
		t.Errorf("%s, %v", got.String(), err)
	}
}

func TestACutOrChangedStreamIsAnError(t *testing.T) {
	whole := someFrames()
	for n := 1; n < len(whole); n++ {
		err := streamed(NewFrames(bytes.NewReader(whole[:n])), func(labels.Labels, sample) error { return nil })
		if err == nil && n != len(whole)/2 {
			t.Errorf("cut after %d of %d bytes: no error", n, len(whole))
		}
	}
	changed := bytes.Clone(whole)
	changed[len(changed)-1] ^= 1
	if err := streamed(NewFrames(bytes.NewReader(changed)), func(labels.Labels, sample) error { return nil }); err == nil {
		t.Error("a changed byte is no error")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(someFrames())
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := NewFrames(bytes.NewReader(data))
		for {
			if _, err := r.Next(); err != nil {
				if errors.Is(err, io.EOF) {
					return
				}
				return
			}
		}
	})
}
