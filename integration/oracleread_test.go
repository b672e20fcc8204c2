package integration

import (
	"context"
	bits "encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// What of remote read is not compared, because it is open or ours on purpose:
//   - The order of series of SAMPLES: Prometheus has that of its storage. A stream of chunks is sorted, and this is
//     checked of ours.
//   - How samples are divided into chunks and frames, and spans that hold empty buckets: a storage cuts as it likes.
//   - Whether a histogram is a counter's that was reset: that says something of the sample before it in the chunk
//     only. That a histogram is a gauge's is compared.
//   - Texts of errors: Prometheus passes on those of its libraries, ours say what is wrong and what to do.
//   - Statuses of what is wrong with the matchers: Prometheus calls its own failure (500) what the client got wrong;
//     readers would repeat that, and ours is 400.
//   - Hints that reach over the query's own range: Prometheus then answers what its open blocks happen to hold
//     beyond it. Ours never answers more than the range.
//   - A matcher ""="" beside others, with which Prometheus fails: no label lacks a name, so it matches every series.
//   - Series of SAMPLES that have none in the range, which Prometheus lists if a chunk of theirs reaches over it. With the
//     hint "series", where none has samples, ours has at least those with some and at most those of Prometheus.
//   - External labels, which Prometheus adds to what it answers: a tenant has none.
//   - A body over 1 MiB, which Prometheus takes up to 32 MiB: requests hold matchers only.

// readAnswer is what came for each query of a request: samples by series and time.
type readAnswer struct {
	status int
	text   string
	series []map[string]map[int64]string
}

// readRequest makes requests of remote read.
func (g oracleGrammar) readRequest(start int64) *prompb.ReadRequest {
	req := &prompb.ReadRequest{}
	for range 1 + g.IntN(3) {
		req.Queries = append(req.Queries, g.readQuery(start))
	}
	if g.chance(30) {
		req.Queries = nil
	}
	return req
}

func (g oracleGrammar) readQuery(start int64) *prompb.Query {
	q := &prompb.Query{}
	q.StartTimestampMs = start + g.Int64N(oracleSpan+7_200_000) - 3_600_000
	q.EndTimestampMs = q.StartTimestampMs + g.Int64N(oracleSpan/10)
	switch g.IntN(40) {
	case 0: // backwards
		q.StartTimestampMs, q.EndTimestampMs = q.EndTimestampMs+1, q.StartTimestampMs
	case 1:
		q.StartTimestampMs, q.EndTimestampMs = math.MinInt64, math.MaxInt64
	case 2:
		q.StartTimestampMs, q.EndTimestampMs = 0, 1000
	case 3:
		q.EndTimestampMs = q.StartTimestampMs
	case 4:
		q.EndTimestampMs = math.MaxInt64
	case 5:
		q.StartTimestampMs = math.MinInt64
	}
	q.Matchers = g.readMatchers()
	if length := q.EndTimestampMs - q.StartTimestampMs; length > 10 && length < oracleSpan && g.chance(2) {
		from := q.StartTimestampMs + g.Int64N(length/2)
		q.Hints = &prompb.ReadHints{
			StartMs: from, EndMs: from + g.Int64N(q.EndTimestampMs-from), StepMs: g.Int64N(3) * 60_000, RangeMs: g.Int64N(2) * 300_000,
			Func: g.pick("", "rate", "series", "sum", "nothing"), Grouping: []string{"a"}, By: g.chance(2),
		}
	}
	return q
}

func (g oracleGrammar) readMatchers() []*prompb.LabelMatcher {
	m := func(t prompb.LabelMatcher_Type, name, value string) *prompb.LabelMatcher {
		return &prompb.LabelMatcher{Type: t, Name: name, Value: value}
	}
	eq, ne, re, nre := prompb.LabelMatcher_EQ, prompb.LabelMatcher_NEQ, prompb.LabelMatcher_RE, prompb.LabelMatcher_NRE
	var out []*prompb.LabelMatcher
	switch g.IntN(12) {
	case 0:
		out = append(out, m(re, "__name__", "nh.*|mixed|kinds"))
	case 1:
		out = append(out, m(nre, "__name__", "h_.*|c_total|"))
	case 2:
		out = append(out, m(ne, "job", ""))
	case 3:
		out = append(out, m(eq, "__name__", "näme with dots.and/more"))
	case 4:
		if g.chance(3) { // nothing, or what may be empty only
			return g.emptyMatchers(m)
		}
		fallthrough
	default:
		out = append(out, m(eq, "__name__", g.name()))
	}
	for range g.IntN(3) {
		out = append(out, []*prompb.LabelMatcher{
			m(eq, "a", "x"), m(ne, "a", "x"), m(re, "a", "x|y"), m(nre, "a", "x|y"), m(eq, "only", ""), m(ne, "only", ""), m(re, "only", "d|"), m(nre, "b", ""), m(re, "b", ".*"), m(re, "b", ".+"),
			m(eq, "b", "0"), m(nre, "b", "[01]"), m(eq, "nope", "x"), m(ne, "nope", "x"), m(eq, "la bel", "ü"), m(re, "la bel", "ü|"), m(eq, "le", "+Inf"), m(ne, "", "x"),
		}[g.IntN(18)])
	}
	return out
}

func (g oracleGrammar) emptyMatchers(m func(prompb.LabelMatcher_Type, string, string) *prompb.LabelMatcher) []*prompb.LabelMatcher {
	return [][]*prompb.LabelMatcher{nil, {m(prompb.LabelMatcher_RE, "b", ".*")}, {m(prompb.LabelMatcher_EQ, "only", "")}, {m(prompb.LabelMatcher_NEQ, "nope", "x")}, {m(prompb.LabelMatcher_EQ, "", "")}}[g.IntN(5)]
}

// readFrom sends a request of remote read and decodes what comes.
func readFrom(ctx context.Context, url, tenant string, req *prompb.ReadRequest) (readAnswer, error) {
	raw, err := req.Marshal()
	if err != nil {
		return readAnswer{}, err
	}
	r, err := try(ctx, http.MethodPost, url+"/api/v1/read", snappy.Encode(nil, raw), "X-Scope-OrgID", tenant, "Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Read-Version", "0.1.0")
	if err != nil {
		return readAnswer{}, err
	}
	out := readAnswer{status: r.status, text: r.header.Get("Content-Type") + "; " + r.header.Get("Content-Encoding")}
	if r.status != http.StatusOK {
		out.text = r.body
		return out, nil
	}
	for range req.Queries {
		out.series = append(out.series, map[string]map[int64]string{})
	}
	if strings.HasPrefix(r.header.Get("Content-Type"), "application/x-streamed-protobuf") {
		return out, out.frames(req, r.body)
	}
	return out, out.samples(r.body)
}

// samples decodes an answer of SAMPLES.
func (a *readAnswer) samples(body string) error {
	plain, err := snappy.Decode(nil, []byte(body))
	if err != nil {
		return err
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(plain); err != nil {
		return err
	}
	if len(resp.Results) != len(a.series) {
		return fmt.Errorf("%d results of %d queries", len(resp.Results), len(a.series))
	}
	for i, res := range resp.Results {
		for _, ts := range res.Timeseries {
			key := labelText(ts.Labels)
			if a.series[i][key] != nil {
				return fmt.Errorf("series %s comes twice", key)
			}
			points := map[int64]string{}
			for _, s := range ts.Samples {
				points[s.Timestamp] = bitsOf(s.Value)
			}
			for _, h := range ts.Histograms {
				points[h.Timestamp] = protoHistogram(&h)
			}
			if len(points) != len(ts.Samples)+len(ts.Histograms) {
				return fmt.Errorf("series %s has times twice", key)
			}
			a.series[i][key] = points
		}
	}
	return nil
}

// frames decodes a stream of chunks, and checks what clients rely on: series in order, chunks in order that do not
// overlap, and no sample outside of what the request asked for.
func (a *readAnswer) frames(req *prompb.ReadRequest, body string) error {
	rest := []byte(body)
	lastQuery, last, lastTime := int64(0), labels.EmptyLabels(), int64(math.MinInt64)
	for len(rest) > 0 {
		frame, n, err := readFrame(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
		if frame.QueryIndex < lastQuery {
			return fmt.Errorf("query %d after %d", frame.QueryIndex, lastQuery)
		}
		if frame.QueryIndex > lastQuery {
			lastQuery, last = frame.QueryIndex, labels.EmptyLabels()
		}
		for _, s := range frame.ChunkedSeries {
			var b labels.ScratchBuilder
			for _, l := range s.Labels {
				b.Add(l.Name, l.Value)
			}
			ls := b.Labels()
			switch c := labels.Compare(last, ls); {
			case c > 0:
				return fmt.Errorf("%s after %s", ls, last)
			case c < 0:
				lastTime = math.MinInt64
			}
			last = ls
			points := a.series[frame.QueryIndex][labelText(s.Labels)]
			if points == nil {
				points = map[int64]string{}
				a.series[frame.QueryIndex][labelText(s.Labels)] = points
			}
			for _, c := range s.Chunks {
				if err := chunkPoints(c, &lastTime, points); err != nil {
					return fmt.Errorf("series %s: %w", ls, err)
				}
			}
		}
		q := req.Queries[frame.QueryIndex]
		if lastTime > q.EndTimestampMs {
			return fmt.Errorf("series %s reaches to %d, over %d", last, lastTime, q.EndTimestampMs)
		}
	}
	return nil
}

// readFrame decodes the frame that b begins with, and returns its length.
func readFrame(b []byte) (frame prompb.ChunkedReadResponse, n int, err error) {
	size, k := bits.Uvarint(b)
	if k <= 0 || uint64(len(b)-k) < 4+size {
		return frame, 0, io.ErrUnexpectedEOF
	}
	n = k + 4 + int(size)
	if sum := crc32.Checksum(b[k+4:n], crc32.MakeTable(crc32.Castagnoli)); sum != bits.BigEndian.Uint32(b[k:]) {
		return frame, 0, errors.New("the checksum of a frame differs")
	}
	return frame, n, frame.Unmarshal(b[k+4 : n])
}

func chunkPoints(c prompb.Chunk, last *int64, points map[int64]string) error {
	chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
	if err != nil {
		return err
	}
	it, n := chunk.Iterator(nil), 0
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		if t <= *last || t < c.MinTimeMs || t > c.MaxTimeMs {
			return fmt.Errorf("sample at %d of a chunk from %d to %d comes after %d", t, c.MinTimeMs, c.MaxTimeMs, *last)
		}
		*last = t
		n++
		switch kind {
		case chunkenc.ValFloat:
			_, v := it.At()
			points[t] = bitsOf(v)
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			points[t] = intHistogram(h)
		default:
			_, h := it.AtFloatHistogram(nil)
			points[t] = floatHistogram(h)
		}
	}
	if n == 0 {
		return errors.New("a chunk is empty")
	}
	return it.Err()
}

// bitsOf tells stale markers from other NaN.
func bitsOf(f float64) string { return strconv.FormatUint(math.Float64bits(f), 16) }

func labelText(ls []prompb.Label) string {
	parts := make([]string, len(ls))
	for i, l := range ls {
		parts[i] = fmt.Sprintf("%q=%q", l.Name, l.Value)
	}
	return strings.Join(parts, ",")
}

func protoHistogram(h *prompb.Histogram) string {
	if h.IsFloatHistogram() {
		return floatHistogram(h.ToFloatHistogram())
	}
	return intHistogram(h.ToIntHistogram())
}

func intHistogram(h *histogram.Histogram) string {
	h = h.Copy().Compact(0)
	return fmt.Sprintf("int %v %d %x %d %x %d %v %v %v %v %v", h.CounterResetHint == histogram.GaugeType, h.Schema, math.Float64bits(h.ZeroThreshold), h.ZeroCount, math.Float64bits(h.Sum), h.Count,
		h.PositiveSpans, h.PositiveBuckets, h.NegativeSpans, h.NegativeBuckets, h.CustomValues)
}

func floatHistogram(h *histogram.FloatHistogram) string {
	h = h.Copy().Compact(0)
	return fmt.Sprintf("float %v %d %x %v %x %v %v %v %v %v %v", h.CounterResetHint == histogram.GaugeType, h.Schema, math.Float64bits(h.ZeroThreshold), h.ZeroCount, math.Float64bits(h.Sum), h.Count,
		h.PositiveSpans, h.PositiveBuckets, h.NegativeSpans, h.NegativeBuckets, h.CustomValues)
}

// withoutFunc is req without the functions of its hints.
func withoutFunc(req *prompb.ReadRequest) *prompb.ReadRequest {
	out := &prompb.ReadRequest{}
	for _, q := range req.Queries {
		other := *q
		if q.Hints != nil {
			hints := *q.Hints
			hints.Func, other.Hints = "", &hints
		}
		out.Queries = append(out.Queries, &other)
	}
	return out
}

// unlisted returns for each query which series must be there although they come without samples; nil where that is
// none.
func unlisted(req *prompb.ReadRequest, types []prompb.ReadRequest_ResponseType, plain func() readAnswer) []map[string]bool {
	out := make([]map[string]bool, len(req.Queries))
	for i, q := range req.Queries {
		if types != nil || q.Hints == nil || q.Hints.Func != "series" {
			continue
		}
		out[i] = map[string]bool{}
		for key, points := range plain().series[i] {
			if len(points) > 0 {
				out[i][key] = true
			}
		}
	}
	return out
}

// withSamples are the series that have any, or that are in listed.
func withSamples(series map[string]map[int64]string, listed map[string]bool) []string {
	var out []string
	for key, points := range series {
		if len(points) > 0 || listed[key] {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// unlikeRead says how two answers differ; empty: not at all. Series without samples are listed by how the samples around
// them are cut into chunks: got may have those of known, too.
func unlikeRead(got, want readAnswer, listed []map[string]bool, known map[string]map[int64]string) string {
	if got.status != want.status || got.status == http.StatusOK && got.text != want.text {
		return fmt.Sprintf("answered %d %q, want %d %q", got.status, got.text, want.status, want.text)
	}
	for i := range want.series {
		g, w := withSamples(got.series[i], listed[i]), withSamples(want.series[i], listed[i])
		for key := range got.series[i] {
			if want.series[i][key] == nil && known[key] == nil {
				return fmt.Sprintf("query %d: nobody knows %s", i, key)
			}
		}
		if !slices.Equal(g, w) || len(g) < len(listed[i]) {
			return fmt.Sprintf("query %d: series\n%.1500q\nwant\n%.1500q", i, g, w)
		}
		for _, key := range w {
			gp, wp := got.series[i][key], want.series[i][key]
			for at, v := range wp {
				if gp[at] != v {
					return fmt.Sprintf("query %d: %s at %d is %q, want %q", i, key, at, gp[at], v)
				}
			}
			if len(gp) != len(wp) {
				return fmt.Sprintf("query %d: %s has %d samples, want %d", i, key, len(gp), len(wp))
			}
		}
	}
	return ""
}

// TestRemoteReadIsThatOfAPrometheusBesideUs sends generated requests of remote read, as samples and as chunks, and
// compares every sample.
func TestRemoteReadIsThatOfAPrometheusBesideUs(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	o := newOracle(ctx, t)
	t.Run("requests", func(t *testing.T) { o.compareReads(ctx, t) })
	t.Run("bad requests", func(t *testing.T) { o.compareBadReads(ctx, t) })
	t.Run("a Prometheus that reads from us", func(t *testing.T) { o.compareReader(ctx, t) })
}

func (o *oracle) compareReads(ctx context.Context, t *testing.T) {
	g := oracleGrammar{rand.New(rand.NewPCG(3, 5))}
	series, samples, wrong := 0, 0, 0
	all, err := readFrom(ctx, o.base, "", &prompb.ReadRequest{Queries: []*prompb.Query{{EndTimestampMs: time.Now().UnixMilli(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}}})
	must(t, err)
	for i := range 120 {
		req := g.readRequest(o.start)
		for _, types := range [][]prompb.ReadRequest_ResponseType{nil, {prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}} {
			req.AcceptedResponseTypes = types
			want, err := readFrom(ctx, o.base, "", req)
			must(t, err)
			for _, s := range want.series {
				series += len(s)
				for _, points := range s {
					samples += len(points)
				}
			}
			listed := func() readAnswer { // of who asks for the samples, too
				plain, err := readFrom(ctx, o.base, "", withoutFunc(req))
				must(t, err)
				return plain
			}
			got, err := readFrom(ctx, o.n.URL("/prometheus"), o.tenants[i%len(o.tenants)], req)
			diff := ""
			if err != nil {
				diff = err.Error()
			} else {
				diff = unlikeRead(got, want, unlisted(req, types, listed), all.series[0])
			}
			if diff != "" {
				t.Errorf("request %d, %v:\n%s", i, req, diff)
				if wrong++; wrong > 20 {
					return
				}
			}
		}
	}
	t.Logf("compared %d series with %d samples", series, samples)
	if series < 1000 || samples < 50_000 {
		t.Errorf("only %d series with %d samples were compared", series, samples)
	}
}

// compareBadReads sends what is no request.
func (o *oracle) compareBadReads(ctx context.Context, t *testing.T) {
	plain := func(req *prompb.ReadRequest) []byte {
		raw, err := req.Marshal()
		must(t, err)
		return raw
	}
	one := func(t prompb.LabelMatcher_Type, name, value string) *prompb.ReadRequest {
		return &prompb.ReadRequest{Queries: []*prompb.Query{{EndTimestampMs: 1, Matchers: []*prompb.LabelMatcher{{Type: t, Name: name, Value: value}}}}}
	}
	good := plain(one(prompb.LabelMatcher_EQ, "a", "x"))
	strange := one(prompb.LabelMatcher_EQ, "a", "x")
	strange.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{7}
	nameless := one(prompb.LabelMatcher_EQ, "a", "x")
	nameless.Queries[0].Matchers = append(nameless.Queries[0].Matchers, &prompb.LabelMatcher{})
	second := one(prompb.LabelMatcher_EQ, "a", "x")
	second.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{7, prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	for _, c := range []struct {
		name string
		body []byte
		ours int // where it is not Prometheus's status
	}{
		{"good", snappy.Encode(nil, good), 0},
		{"good without queries", snappy.Encode(nil, nil), 0},
		{"no body", nil, 0},
		{"not compressed", good, 0},
		{"half of it", snappy.Encode(nil, good)[:5], 0},
		{"no protobuf", snappy.Encode(nil, []byte("no protobuf")), 0},
		{"half a protobuf", snappy.Encode(nil, good[:7]), 0},
		{"says it is 4 GiB", []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0x00}, http.StatusRequestEntityTooLarge},
		{"says it is 33 MiB", append([]byte{0x81, 0x80, 0x80, 0x10}, good...), http.StatusRequestEntityTooLarge},
		{"is 2 MiB", snappy.Encode(nil, plain(one(prompb.LabelMatcher_EQ, "a", strings.Repeat("x", 2<<20)))), http.StatusRequestEntityTooLarge},
		{"unknown type of answer", snappy.Encode(nil, plain(strange)), 0},
		{"unknown type of answer, then known ones", snappy.Encode(nil, plain(second)), 0},
		{"bad expression", snappy.Encode(nil, plain(one(prompb.LabelMatcher_RE, "a", "("))), http.StatusBadRequest},
		{"matcher without a name", snappy.Encode(nil, plain(nameless)), http.StatusOK},
		{"unknown type of matcher", snappy.Encode(nil, plain(one(9, "a", "x"))), http.StatusBadRequest},
	} {
		header := []string{"X-Scope-OrgID", "plain", "Content-Type", "application/x-protobuf", "Content-Encoding", "snappy"}
		want := call(ctx, t, http.MethodPost, o.base+"/api/v1/read", c.body, header...)
		got := call(ctx, t, http.MethodPost, o.n.URL("/prometheus/api/v1/read"), c.body, header...)
		status := want.status
		if c.ours != 0 {
			status = c.ours
		}
		if got.status != status || got.header.Get("Content-Type") != want.header.Get("Content-Type") && c.ours == 0 {
			t.Errorf("%s: answered %s (%s), want %d: %s (%s)", c.name, got, got.header.Get("Content-Type"), status, want, want.header.Get("Content-Type"))
		}
		if got.status != http.StatusOK && strings.TrimSpace(got.body) == "" {
			t.Errorf("%s: no word of what is wrong", c.name)
		}
	}
}

// compareReader asks a Prometheus that has nothing itself and reads from us: it answers as one that has the data.
func (o *oracle) compareReader(ctx context.Context, t *testing.T) {
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Name: "reader", Dir: filepath.Join(t.TempDir(), "reader"), Receiver: true, ReadURL: o.n.URL("/prometheus/api/v1/read"), Tenant: "plain", Features: oracleFeatures()})
	harness.Need(t, err)
	defer func() { must(t, p.Stop()) }()
	beside := *o
	beside.tenants = []string{""}
	beside.filled = 0
	asked := 0
	for seed := range uint64(80) {
		g := oracleGrammar{rand.New(rand.NewPCG(seed, 9))}
		c := g.call(o.start)[0]
		if strings.Contains(c.form.Get("query"), "info(") {
			continue // Prometheus cannot evaluate info() over remote read
		}
		asked++
		if err := beside.compareAt(ctx, c, "http://"+p.Address); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	for _, match := range []string{`g`, `{job="j",a="x"}`, `nothing`, `mixed{b!="1"}`} {
		must(t, beside.compareListsAt(ctx, "series", url.Values{"match[]": {match}, "start": {seconds(o.start)}, "end": {seconds(o.start + oracleSpan)}}, "http://"+p.Address))
	}
	if t.Logf("asked %d queries, of which %d have points", asked, beside.filled); beside.filled < asked/3 {
		t.Errorf("only %d answers have points", beside.filled)
	}
}
