// Package remoteread owns the commands that read samples from a server by remote read.
package remoteread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

// sample is one point of a series; a histogram if one of them is set.
type sample struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// take is called for every sample, of one series after the other and in the order of their times. The
// labels are valid until the next series.
type take func(ls labels.Labels, s sample) error

// read asks for the samples of a selector, times in milliseconds, and hands them on as they come.
func (c *command) read(ctx context.Context, from, to int64, do take) error {
	query, err := c.query(from, to)
	if err != nil {
		return err
	}
	req := &prompb.ReadRequest{Queries: []*prompb.Query{query}}
	if c.chunks {
		req.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
	}
	body, err := req.Marshal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, err := c.server.Stream(ctx, client.Call{
		Method: http.MethodPost, Path: c.path, Body: snappy.Encode(nil, body), Type: "application/x-protobuf",
		Header: map[string]string{"Content-Encoding": "snappy", "X-Prometheus-Remote-Read-Version": "0.1.0"},
	})
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	bounded := &bound{r: answer, left: c.sizeLimit()}
	if c.chunks {
		return streamed(NewFrames(bounded), do)
	}
	return whole(bounded, do)
}

// query makes the request of the selector.
func (c *command) query(from, to int64) (*prompb.Query, error) {
	q := &prompb.Query{StartTimestampMs: from, EndTimestampMs: to}
	matchers, err := rulefiles.Parser().ParseMetricSelector(c.selector)
	if err != nil {
		return nil, fmt.Errorf("--selector: %w", err)
	}
	kinds := map[labels.MatchType]prompb.LabelMatcher_Type{
		labels.MatchEqual: prompb.LabelMatcher_EQ, labels.MatchNotEqual: prompb.LabelMatcher_NEQ,
		labels.MatchRegexp: prompb.LabelMatcher_RE, labels.MatchNotRegexp: prompb.LabelMatcher_NRE,
	}
	for _, m := range matchers {
		q.Matchers = append(q.Matchers, &prompb.LabelMatcher{Type: kinds[m.Type], Name: m.Name, Value: m.Value})
	}
	return q, nil
}

// bound fails once more than left bytes were read.
type bound struct {
	r    io.Reader
	left int64
}

// Read is part of io.Reader.
func (b *bound) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errors.New("the answer is larger than --read-size-limit")
	}
	return n, err
}

// streamed reads chunks.
func streamed(f *Frames, do take) error {
	var b labels.ScratchBuilder
	for {
		m, err := f.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, s := range m.ChunkedSeries {
			ls := s.ToLabels(&b, nil)
			for _, chunk := range s.Chunks {
				if err := unpack(chunk, ls, do); err != nil {
					return err
				}
			}
		}
	}
}

// unpack hands on the samples of one chunk.
func unpack(c prompb.Chunk, ls labels.Labels, do take) error {
	chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
	if err != nil {
		return fmt.Errorf("read a chunk: %w", err)
	}
	for it := chunk.Iterator(nil); ; {
		var s sample
		switch it.Next() {
		case chunkenc.ValNone:
			return it.Err()
		case chunkenc.ValFloat:
			s.t, s.v = it.At()
		case chunkenc.ValHistogram:
			s.t, s.h = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			s.t, s.fh = it.AtFloatHistogram(nil)
		}
		if err := do(ls, s); err != nil {
			return err
		}
	}
}

// whole reads an answer that is one message.
func whole(r io.Reader, do take) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	n, err := snappy.DecodedLen(data)
	if err != nil || n > maxWholeBytes {
		return errors.Join(fmt.Errorf("the answer has %d bytes unpacked; use --use-chunks", n), err)
	}
	if data, err = snappy.Decode(nil, data); err != nil {
		return fmt.Errorf("unpack the answer: %w", err)
	}
	var m prompb.ReadResponse
	if err := m.Unmarshal(data); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	var b labels.ScratchBuilder
	for _, result := range m.Results {
		for _, s := range result.Timeseries {
			if err := each(s, s.ToLabels(&b, nil), do); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxWholeBytes bounds an answer that is held in memory.
const maxWholeBytes = 2 << 30

// each hands on floats and histograms of a series in the order of their times.
func each(s *prompb.TimeSeries, ls labels.Labels, do take) error {
	i, j := 0, 0
	for i < len(s.Samples) || j < len(s.Histograms) {
		var x sample
		if j == len(s.Histograms) || i < len(s.Samples) && s.Samples[i].Timestamp <= s.Histograms[j].Timestamp {
			x = sample{t: s.Samples[i].Timestamp, v: s.Samples[i].Value}
			i++
		} else {
			h := s.Histograms[j]
			x.t = h.Timestamp
			if h.IsFloatHistogram() {
				x.fh = h.ToFloatHistogram()
			} else {
				x.h = h.ToIntHistogram()
			}
			j++
		}
		if err := do(ls, x); err != nil {
			return err
		}
	}
	return nil
}

// line writes a sample as text.
func (s sample) line(w *bytes.Buffer, ls labels.Labels) {
	switch {
	case s.h != nil:
		fmt.Fprintf(w, "%s %s %d\n", ls, s.h, s.t)
	case s.fh != nil:
		fmt.Fprintf(w, "%s %s %d\n", ls, s.fh, s.t)
	default:
		fmt.Fprintf(w, "%s %v %d\n", ls, s.v, s.t)
	}
}
