package prom

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"slices"
	"time"
	"unsafe"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

const (
	// maxReadRequestBytes bounds a remote read request, encoded and decoded: it holds matchers only.
	maxReadRequestBytes = 1 << 20
	// maxReadQueries bounds the queries of one request; Prometheus sends one.
	maxReadQueries = 100
	// frameBytes is the aim for one frame of a streamed answer, as in Prometheus.
	frameBytes = 1 << 20
)

// RemoteRead answers Prometheus's remote read protocol, as samples or as a stream of chunks.
func (a *API) RemoteRead(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := a.bounded(r)
	defer cancel()
	release, err := a.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	req, err := readRequest(w, r)
	if err != nil {
		return err
	}
	for _, query := range req.Queries {
		if err := a.checkRead(ctx, query); err != nil {
			return err
		}
	}
	ctx, working := a.working(ctx)
	defer working.End()
	if len(req.AcceptedResponseTypes) == 0 {
		return a.readSamples(ctx, w, req)
	}
	for _, t := range req.AcceptedResponseTypes {
		switch t {
		case prompb.ReadRequest_SAMPLES:
			return a.readSamples(ctx, w, req)
		case prompb.ReadRequest_STREAMED_XOR_CHUNKS:
			return a.readChunks(ctx, w, req)
		}
	}
	return errs.New(errs.Invalid, "server does not support any of the requested response types: %v", req.AcceptedResponseTypes)
}

// working returns ctx for a read that may use the memory of one query. Without a limit of that, it is nil, and what is read and
// what is answered count by themselves in the memory of the process. The caller ends it.
func (a *API) working(ctx context.Context) (context.Context, *memory.Working) {
	most := smallest(ctx, a, limits.MaxEstimatedMemoryConsumptionPerQuery)
	if most <= 0 {
		return ctx, nil
	}
	row := limits.MaxEstimatedMemoryConsumptionPerQuery.Row()
	ctx, working := a.b.Memory.Lasting(ctx, int64(most), errs.Limit(errs.TooLarge, "max-estimated-memory-consumption-per-query", row.Flag, row.Name,
		"the read exceeded the maximum allowed estimated amount of memory consumed by a single query (limit: %d bytes)", most))
	return memory.Counting(ctx), working // what is made of the series is counted here
}

// checkRead refuses to read what the tenants may not.
func (a *API) checkRead(ctx context.Context, query *prompb.Query) error {
	// The ends may be further apart than a Duration holds.
	if ms := float64(query.EndTimestampMs) - float64(query.StartTimestampMs); ms > 0 {
		if err := a.checkSpan(ctx, time.Duration(min(ms, math.MaxInt64/1e6))*time.Millisecond); err != nil {
			return err
		}
	}
	ms, err := readMatchers(query)
	if err != nil {
		return err
	}
	return a.checkSelector(ctx, ms)
}

// readRequest reads and decodes the body. Errors: Invalid, BodyTooLarge.
func readRequest(w http.ResponseWriter, r *http.Request) (*prompb.ReadRequest, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReadRequestBytes))
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errs.New(errs.BodyTooLarge, "remote read request is larger than %d bytes", tooBig.Limit)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the request body: %w", err)
	}
	return decodeReadRequest(body)
}

func decodeReadRequest(body []byte) (*prompb.ReadRequest, error) {
	n, err := s2.DecodedLen(body)
	if err != nil {
		return nil, errs.New(errs.Invalid, "decompress remote read request: %w", err)
	}
	if n > maxReadRequestBytes {
		return nil, errs.New(errs.BodyTooLarge, "remote read request is larger than %d bytes", maxReadRequestBytes)
	}
	plain, err := s2.Decode(nil, body)
	if err != nil {
		return nil, errs.New(errs.Invalid, "decompress remote read request: %w", err)
	}
	req := new(prompb.ReadRequest)
	if err := req.Unmarshal(plain); err != nil {
		return nil, errs.New(errs.Invalid, "decode remote read request: %w", err)
	}
	if len(req.Queries) > maxReadQueries {
		return nil, errs.New(errs.Invalid, "remote read request has %d queries, at most %d are allowed", len(req.Queries), maxReadQueries)
	}
	return req, nil
}

// readMatchers translates the matchers of a query. Errors: Invalid.
func readMatchers(q *prompb.Query) ([]*labels.Matcher, error) {
	types := map[prompb.LabelMatcher_Type]labels.MatchType{
		prompb.LabelMatcher_EQ: labels.MatchEqual, prompb.LabelMatcher_NEQ: labels.MatchNotEqual,
		prompb.LabelMatcher_RE: labels.MatchRegexp, prompb.LabelMatcher_NRE: labels.MatchNotRegexp,
	}
	out := make([]*labels.Matcher, 0, len(q.Matchers))
	for _, m := range q.Matchers {
		t, ok := types[m.Type]
		if !ok {
			return nil, errs.New(errs.Invalid, "matcher of label %q has the unknown type %d", m.Name, m.Type)
		}
		lm, err := labels.NewMatcher(t, m.Name, m.Value)
		if err != nil {
			return nil, errs.New(errs.Invalid, "matcher of label %q: %w", m.Name, err)
		}
		out = append(out, lm)
	}
	return out, nil
}

func readHints(q *prompb.Query) *storage.SelectHints {
	if q.Hints == nil {
		return nil
	}
	return &storage.SelectHints{
		Start: q.Hints.StartMs, End: q.Hints.EndMs, Step: q.Hints.StepMs, Func: q.Hints.Func,
		Grouping: q.Hints.Grouping, Range: q.Hints.RangeMs, By: q.Hints.By,
	}
}

func (a *API) readSamples(ctx context.Context, w http.ResponseWriter, req *prompb.ReadRequest) error {
	resp := prompb.ReadResponse{Results: make([]*prompb.QueryResult, 0, len(req.Queries))}
	left := allowance{most: a.readSamplesMost, loan: a.b.Memory.Loan(), working: memory.WorkingOf(ctx)}
	defer left.loan.Return()
	for _, query := range req.Queries {
		res, err := a.samplesOf(ctx, query, &left)
		if err != nil {
			return err
		}
		resp.Results = append(resp.Results, res)
	}
	plain, err := resp.Marshal()
	if err != nil {
		return fmt.Errorf("encode remote read answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(s2.EncodeSnappy(nil, plain)) // the client is gone if this fails
	return nil
}

// allowance is how many samples an answer may have, and has, and the memory that it takes: it is built as a whole.
type allowance struct {
	most, used int // most 0: no limit
	loan       memory.Loan
	working    *memory.Working // nil: the loan is charged
	owed       int64           // bytes that are not charged yet
}

const (
	// sampleBytes is what a float takes: as it is, in a list that grows, encoded, and compressed.
	sampleBytes = 4 * 16
	// seriesBytes is what a series takes beside its samples and the text of its labels.
	seriesBytes = 500
	// chargeBytes is how much is charged at once.
	chargeBytes = 64 << 10
)

// one counts a sample of so many bytes. Errors: Invalid where that is one too many, as in Prometheus, TooLarge where the read
// needs more memory than a query may, Unavailable if the process is short of it.
func (x *allowance) one(bytes int) error {
	if x.used++; x.most > 0 && x.used > x.most {
		return errs.New(errs.Invalid, "exceeded sample limit (%d) of the setting api.max_remote_read_samples; ask for STREAMED_XOR_CHUNKS, which has no such limit, or for less at a time", x.most)
	}
	return x.charge(bytes)
}

// charge counts bytes.
func (x *allowance) charge(bytes int) error {
	if x.owed += int64(bytes); x.owed < chargeBytes {
		return nil
	}
	owed := x.owed
	x.owed = 0
	if x.working != nil {
		return x.working.Use(owed)
	}
	return x.loan.Use(owed)
}

// samplesOf reads the series of one query and counts their samples.
func (a *API) samplesOf(ctx context.Context, query *prompb.Query, left *allowance) (*prompb.QueryResult, error) {
	ms, err := readMatchers(query)
	if err != nil {
		return nil, err
	}
	q, err := a.b.Storage.Querier(query.StartTimestampMs, query.EndTimestampMs)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	set := q.Select(ctx, false, readHints(query), ms...)
	res := new(prompb.QueryResult)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		ts := &prompb.TimeSeries{Labels: prompb.FromLabels(s.Labels(), nil)}
		if err := left.charge(seriesBytes + 2*int(s.Labels().ByteSize())); err != nil {
			return nil, err
		}
		if err := appendSamples(ts, it, left); err != nil {
			return nil, err
		}
		res.Timeseries = append(res.Timeseries, ts)
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	return res, nil
}

func appendSamples(ts *prompb.TimeSeries, it chunkenc.Iterator, left *allowance) error {
	for {
		kind, bytes := it.Next(), sampleBytes
		switch kind {
		case chunkenc.ValNone:
			return it.Err()
		case chunkenc.ValFloat:
			t, v := it.At()
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t, Value: v})
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(t, h))
			bytes = histogramBytes(ts)
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(t, h))
			bytes = histogramBytes(ts)
		default:
			return fmt.Errorf("sample of unknown type %s", kind)
		}
		if err := left.one(bytes); err != nil {
			return err
		}
	}
}

// histogramBytes is what the last histogram of a series takes.
func histogramBytes(ts *prompb.TimeSeries) int {
	h := &ts.Histograms[len(ts.Histograms)-1]
	return int(unsafe.Sizeof(*h)) + 8*(len(h.PositiveDeltas)+len(h.NegativeDeltas)+len(h.PositiveCounts)+len(h.NegativeCounts)+len(h.PositiveSpans)+len(h.NegativeSpans)) + 2*h.Size()
}

func (a *API) readChunks(ctx context.Context, w http.ResponseWriter, req *prompb.ReadRequest) error {
	out := newFrameWriter(w)
	for i, query := range req.Queries {
		if err := a.chunksOf(ctx, query, int64(i), out); err != nil {
			if out.sent {
				out.cut()
			}
			return err
		}
	}
	if !out.sent {
		out.begin()
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// chunksOf streams the series of one query, each in frames of about frameBytes.
func (a *API) chunksOf(ctx context.Context, query *prompb.Query, index int64, out *frameWriter) error {
	ms, err := readMatchers(query)
	if err != nil {
		return err
	}
	q, err := a.b.Storage.ChunkQuerier(query.StartTimestampMs, query.EndTimestampMs)
	if err != nil {
		return err
	}
	defer q.Close()
	hints := readHints(query)
	if hints != nil && hints.Func == "series" {
		hints.Func = "" // a stream has no form for series without chunks
	}
	set := q.Select(ctx, true, hints, ms...) // sorted: readers merge streams
	var (
		it   chunks.Iterator
		lbls []prompb.Label
	)
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		lbls = prompb.FromLabels(s.Labels(), lbls)
		if err := out.series(index, lbls, it); err != nil {
			return err
		}
	}
	if err := set.Err(); err != nil {
		return err
	}
	return nil
}

// frameWriter writes frames: length as uvarint, CRC-32C, a ChunkedReadResponse.
type frameWriter struct {
	w     http.ResponseWriter
	table *crc32.Table
	sent  bool
	chks  []prompb.Chunk
	buf   []byte
}

func newFrameWriter(w http.ResponseWriter) *frameWriter {
	return &frameWriter{w: w, table: crc32.MakeTable(crc32.Castagnoli)}
}

func (f *frameWriter) begin() {
	f.sent = true
	f.w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
}

// cut ends an answer that is not whole. The status is gone, so the connection is cut; and because to who speaks
// HTTP/1.0 that is how every answer ends, what it has ends within a frame.
func (f *frameWriter) cut() {
	_, _ = f.w.Write([]byte{tornFrame}) // the client is gone if this fails
	_ = http.NewResponseController(f.w).Flush()
	panic(http.ErrAbortHandler)
}

// tornFrame is the beginning of a length, and no length.
const tornFrame = 0x80

// series sends the chunks of one series. A frame holds one series only.
func (f *frameWriter) series(index int64, lbls []prompb.Label, it chunks.Iterator) error {
	overhead := 0
	for i := range lbls {
		overhead += lbls[i].Size()
	}
	f.chks = f.chks[:0]
	size := overhead
	for it.Next() {
		c := it.At()
		if c.Chunk == nil {
			return fmt.Errorf("chunk %d of a series has no data", c.Ref)
		}
		f.chks = append(f.chks, prompb.Chunk{
			MinTimeMs: c.MinTime, MaxTimeMs: c.MaxTime, Type: prompb.Chunk_Encoding(c.Chunk.Encoding()), Data: c.Chunk.Bytes(),
		})
		if size += f.chks[len(f.chks)-1].Size(); size < frameBytes {
			continue
		}
		if err := f.frame(index, lbls); err != nil {
			return err
		}
		size = overhead
	}
	if err := it.Err(); err != nil {
		return err
	}
	if len(f.chks) == 0 {
		return nil
	}
	return f.frame(index, lbls)
}

func (f *frameWriter) frame(index int64, lbls []prompb.Label) error {
	resp := prompb.ChunkedReadResponse{QueryIndex: index, ChunkedSeries: []*prompb.ChunkedSeries{{Labels: lbls, Chunks: f.chks}}}
	size := resp.Size()
	const head = binary.MaxVarintLen64 + crc32.Size
	f.buf = slices.Grow(f.buf[:0], head+size)
	f.buf = binary.AppendUvarint(f.buf, uint64(size))
	sum := len(f.buf)
	body := f.buf[sum+crc32.Size : sum+crc32.Size+size]
	if _, err := resp.MarshalToSizedBuffer(body); err != nil {
		return fmt.Errorf("encode remote read frame: %w", err)
	}
	f.buf = binary.BigEndian.AppendUint32(f.buf, crc32.Checksum(body, f.table))
	f.buf = f.buf[:len(f.buf)+size]
	f.chks = f.chks[:0]
	if !f.sent {
		f.begin()
	}
	if _, err := f.w.Write(f.buf); err != nil {
		return errs.Wrap(errs.Canceled, fmt.Errorf("write remote read frame: %w", err))
	}
	return nil
}
