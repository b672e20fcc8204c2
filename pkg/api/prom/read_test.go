package prom

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func readBody(t testing.TB, req *prompb.ReadRequest) []byte {
	t.Helper()
	b, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return s2.EncodeSnappy(nil, b)
}

func matchJob(kind prompb.LabelMatcher_Type, value string) *prompb.Query {
	return &prompb.Query{StartTimestampMs: 0, EndTimestampMs: 600_000, Matchers: []*prompb.LabelMatcher{{Type: kind, Name: "job", Value: value}}}
}

func TestRemoteReadAnswersSamples(t *testing.T) {
	a := newAPI(t, setup{})
	for name, types := range map[string][]prompb.ReadRequest_ResponseType{"default": nil, "asked": {prompb.ReadRequest_SAMPLES}} {
		body := readBody(t, &prompb.ReadRequest{Queries: []*prompb.Query{matchJob(prompb.LabelMatcher_EQ, "a"), matchJob(prompb.LabelMatcher_RE, "b|c")}, AcceptedResponseTypes: types})
		rec := a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(body)))
		plain, err := s2.Decode(nil, rec.Body.Bytes())
		if err != nil {
			t.Fatalf("%s: status %d: %v", name, rec.Code, err)
		}
		var resp prompb.ReadResponse
		if err := resp.Unmarshal(plain); err != nil {
			t.Fatal(err)
		}
		if len(resp.Results) != 2 || len(resp.Results[0].Timeseries) != 2 || len(resp.Results[1].Timeseries) != 2 {
			t.Fatalf("%s: got %d results %v", name, len(resp.Results), resp.Results)
		}
		first := resp.Results[0].Timeseries[0]
		if len(first.Samples) != 11 || first.Samples[10].Timestamp != 600_000 || first.Samples[10].Value != 600 {
			t.Errorf("%s: samples %v", name, first.Samples)
		}
		histograms := 0
		for _, ts := range resp.Results[1].Timeseries {
			histograms += len(ts.Histograms)
		}
		if histograms != 11 {
			t.Errorf("%s: %d histograms, want 11", name, histograms)
		}
	}
}

// frames reads a streamed answer.
func frames(t *testing.T, r io.Reader) (out []prompb.ChunkedReadResponse) {
	t.Helper()
	br := bufio.NewReader(r)
	for {
		n, err := binary.ReadUvarint(br)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4+n)
		if _, err := io.ReadFull(br, b); err != nil {
			t.Fatal(err)
		}
		if sum := crc32.Checksum(b[4:], crc32.MakeTable(crc32.Castagnoli)); sum != binary.BigEndian.Uint32(b) {
			t.Fatal("checksum differs")
		}
		var f prompb.ChunkedReadResponse
		if err := f.Unmarshal(b[4:]); err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
}

func TestRemoteReadStreamsChunks(t *testing.T) {
	a := newAPI(t, setup{})
	body := readBody(t, &prompb.ReadRequest{
		Queries:               []*prompb.Query{matchJob(prompb.LabelMatcher_EQ, "nothing"), matchJob(prompb.LabelMatcher_NEQ, "b")},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	})
	rec := a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(body)))
	if ct := rec.Header().Get("Content-Type"); rec.Code != 200 || ct != "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse" {
		t.Fatalf("status %d, content type %q", rec.Code, ct)
	}
	got := frames(t, rec.Body)
	if len(got) != 2 || got[0].QueryIndex != 1 {
		t.Fatalf("got %d frames: %v", len(got), got)
	}
	n := 0
	for _, f := range got {
		for _, c := range f.ChunkedSeries[0].Chunks {
			chk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
			if err != nil {
				t.Fatal(err)
			}
			n += chk.NumSamples()
		}
	}
	if n != 22 {
		t.Errorf("%d samples, want 22", n)
	}
}

// longSeries is how many samples the series of withLongSeries has, one each millisecond.
const longSeries = 300_000

// withLongSeries is an API over one series, and a query for it.
func withLongSeries(t *testing.T) (*API, *prompb.Query) {
	t.Helper()
	return withSeriesOf(t, longSeries)
}

// withSeriesOf is withLongSeries with n samples.
func withSeriesOf(t *testing.T, n int64) (*API, *prompb.Query) {
	t.Helper()
	db := teststorage.New(t)
	app := db.Appender(t.Context())
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		if _, err := app.Append(0, labels.FromStrings("__name__", "long"), i, rng.Float64()); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, setup{store: func(storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable { return db }})
	return a, &prompb.Query{EndTimestampMs: n, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: "long"}}}
}

// TestAnAnswerOfSamplesCountsInTheMemoryOfTheProcess asks for one of about 20 MB.
func TestAnAnswerOfSamplesCountsInTheMemoryOfTheProcess(t *testing.T) {
	a, q := withLongSeries(t)
	for bytes, want := range map[int64]int{8 << 20: 503, 1 << 40: 200} { // the memory of the test itself counts, too
		a.b.Memory = memory.New(memory.Limits{Process: bytes, Go: bytes}, memory.Deps{}).Account(memory.Queries)
		srv := a.served(t)
		n, err := readFrom(t, srv.URL, &prompb.ReadRequest{Queries: []*prompb.Query{q}})
		if want == 200 && (err != nil || n != 1) || want == 503 && (err == nil || !strings.Contains(err.Error(), "503")) {
			t.Errorf("of %d bytes: %d series, %v, want %d", bytes, n, err, want)
		}
		if n, err := readFrom(t, srv.URL, chunksOf(q)); err != nil || n < 3 { // frames
			t.Errorf("as a stream: %d frames, %v", n, err)
		}
		srv.Close()
		if held := a.b.Memory.Held(); held != 0 {
			t.Errorf("%d bytes are held after the answer", held)
		}
	}
}

// fetching is storage of which each selection takes memory until its querier is closed, as a querier's does.
type fetching struct {
	storage.SampleAndChunkQueryable
	bytes int64
}

type fetchingSamples struct {
	storage.Querier
	bytes int64
}

type fetchingChunks struct {
	storage.ChunkQuerier
	bytes int64
}

func (f fetching) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := f.SampleAndChunkQueryable.Querier(mint, maxt)
	return fetchingSamples{q, f.bytes}, err
}

func (f fetching) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := f.SampleAndChunkQueryable.ChunkQuerier(mint, maxt)
	return fetchingChunks{q, f.bytes}, err
}

func (q fetchingSamples) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if err := memory.WorkingOf(ctx).Use(q.bytes); err != nil {
		return storage.ErrSeriesSet(err)
	}
	return q.Querier.Select(ctx, sorted, h, ms...)
}

func (q fetchingChunks) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	if err := memory.WorkingOf(ctx).Use(q.bytes); err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	return q.ChunkQuerier.Select(ctx, sorted, h, ms...)
}

// TestARemoteReadMayUseTheMemoryOfOneQuery asks for samples, which take about 2 MB, and for chunks; both have been fetched
// for 0.4 MB.
func TestARemoteReadMayUseTheMemoryOfOneQuery(t *testing.T) {
	a, q := withSeriesOf(t, 30_000)
	a.b.Storage = fetching{a.b.Storage, 400_000}
	a.b.Memory = memory.New(memory.Limits{Process: 1 << 50, Go: 1 << 50}, memory.Deps{}).Account(memory.Queries)
	for _, tc := range []struct {
		most            int
		samples, chunks bool // are answered
	}{{0, true, true}, {6_400_000, true, true}, {2_100_000, false, true}, {500_000, false, true}, {300_000, false, false}} {
		a.b.Limits = func(tenant.ID) limits.View {
			return limits.MaxEstimatedMemoryConsumptionPerQuery.With(limits.View{}, tc.most)
		}
		for _, read := range []struct {
			body     []byte
			answered bool
		}{{readBody(t, &prompb.ReadRequest{Queries: []*prompb.Query{q}}), tc.samples}, {readBody(t, chunksOf(q)), tc.chunks}} {
			rec := a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(read.body)))
			refused := rec.Code == 422 && strings.Contains(rec.Body.String(), "err-amphora-max-estimated-memory-consumption-per-query")
			if read.answered && rec.Code != 200 || !read.answered && !refused {
				t.Errorf("with %d bytes, %+v: status %d, %.300s", tc.most, tc, rec.Code, rec.Body.String())
			}
			if held := a.b.Memory.Held(); held != 0 {
				t.Errorf("%d bytes are held after the answer", held)
			}
		}
	}
}

// TestFramesOfOneSeriesAreOfBoundedSize streams a series that has several times as much as a frame.
func TestFramesOfOneSeriesAreOfBoundedSize(t *testing.T) {
	a, q := withLongSeries(t)
	body := readBody(t, chunksOf(q))
	got := frames(t, a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(body))).Body)
	n := 0
	for i, f := range got {
		for _, c := range f.ChunkedSeries[0].Chunks {
			chk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
			if err != nil {
				t.Fatal(err)
			}
			n += chk.NumSamples()
		}
		if size := f.Size(); size > frameBytes+8192 || size < frameBytes/2 && i < len(got)-1 {
			t.Errorf("frame %d of %d has %d bytes", i, len(got), size)
		}
	}
	if n != longSeries || len(got) < 3 {
		t.Errorf("%d samples in %d frames, want %d in several", n, len(got), longSeries)
	}
}

func TestRemoteReadRefusesWhatItCannotTrust(t *testing.T) {
	a := newAPI(t, setup{})
	bomb := binary.AppendUvarint(nil, 1<<31)
	many := new(prompb.ReadRequest)
	for range maxReadQueries + 1 {
		many.Queries = append(many.Queries, matchJob(prompb.LabelMatcher_EQ, "a"))
	}
	for name, c := range map[string]struct {
		body   []byte
		status int
		want   string
	}{
		"not snappy":   {[]byte("\xff\xff\xff\xff\xff\xff\xff"), 400, "decompress"},
		"a bomb":       {append(bomb, 0), 413, "larger than"},
		"too large":    {make([]byte, maxReadRequestBytes+1), 413, "larger than"},
		"not protobuf": {s2.EncodeSnappy(nil, []byte("\xff\xff\xff")), 400, "decode"},
		"many queries": {readBody(t, many), 400, "101 queries"},
		"bad regexp":   {readBody(t, &prompb.ReadRequest{Queries: []*prompb.Query{matchJob(prompb.LabelMatcher_RE, "(")}}), 400, "missing closing"},
		"bad matcher":  {readBody(t, &prompb.ReadRequest{Queries: []*prompb.Query{matchJob(9, "a")}}), 400, "unknown type"},
		"bad answer":   {readBody(t, &prompb.ReadRequest{AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{7}}), 400, "response types"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rec := a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(c.body)))
		runtime.ReadMemStats(&after)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s: got %d %s, want %d %q", name, rec.Code, rec.Body, c.status, c.want)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("%s: allocated %d bytes", name, grown)
		}
	}
}

func FuzzReadRequestsAreDecodedInBounds(f *testing.F) {
	f.Add(readBody(f, &prompb.ReadRequest{Queries: []*prompb.Query{matchJob(prompb.LabelMatcher_RE, "a.*")}}))
	f.Add([]byte("\x80\x80\x80\x80\x08\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := decodeReadRequest(body)
		if err != nil {
			return
		}
		for _, q := range req.Queries {
			if _, err := readMatchers(q); err != nil {
				return
			}
		}
	})
}
