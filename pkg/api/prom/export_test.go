package prom

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/imports"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// exported is a line of an export.
type exported struct {
	Metric     map[string]string
	Values     []any
	Timestamps []int64
	Error      string
}

func lines(t *testing.T, body io.Reader) (out []exported) {
	t.Helper()
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, 10<<20)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		var l exported
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", sc.Bytes(), err)
		}
		if l.Error == "" && (len(l.Values) != len(l.Timestamps) || len(l.Values) == 0) {
			t.Fatalf("%s", sc.Bytes())
		}
		out = append(out, l)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func exporting(path string, form url.Values) *http.Request {
	return httptest.NewRequest(http.MethodGet, path+"?"+form.Encode(), http.NoBody)
}

func TestExportsAreLinesOfSeriesInTheirOrder(t *testing.T) {
	a := newAPI(t, setup{})
	rec := a.do(exporting("/export", url.Values{"match[]": {"req_total", `{job="a"}`}, "start": {"60"}, "end": {"300"}, "max_rows_per_line": {"3"}}))
	if rec.Code != 200 || !strings.HasPrefix(rec.Header().Get("Content-Type"), "application/stream+json") {
		t.Fatalf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	got := fmt.Sprint(lines(t, rec.Body))
	want := `[{map[__name__:req_total code:200 job:a] [60 120 180] [60000 120000 180000] } {map[__name__:req_total code:200 job:a] [240 300] [240000 300000] } ` +
		`{map[__name__:req_total code:500 job:a] [1 2 3] [60000 120000 180000] } {map[__name__:req_total code:500 job:a] [4 5] [240000 300000] }]`
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	rec = a.do(exporting("/export", url.Values{"match[]": {"req_total"}, "start": {"60"}, "end": {"61"}, "after": {`{"__name__":"req_total","job":"a","code":"200"}`}}))
	if got, want := fmt.Sprint(lines(t, rec.Body)), `[{map[__name__:req_total code:500 job:a] [1] [60000] }]`; got != want {
		t.Errorf("after the first series: %s, want %s", got, want)
	}
	rec = a.do(exporting("/export", url.Values{"match[]": {"nothing"}}))
	if rec.Code != 200 || rec.Body.Len() != 0 {
		t.Errorf("of nothing: %d %q", rec.Code, rec.Body)
	}
}

func TestExportsRefuseWhatTheyCannotDo(t *testing.T) {
	a := newAPI(t, setup{view: limits.MaxTotalQueryLength.With(limits.View{}, time.Hour)})
	short := url.Values{"start": {"0"}, "end": {"600"}}
	for _, c := range []struct {
		path   string
		form   url.Values
		status int
		want   string
	}{
		{"/export", url.Values{}, 400, "match[]"},
		{"/export", url.Values{"match[]": {"{"}}, 400, "match[]"},
		{"/export", url.Values{"match[]": {`{job=~".*"}`}}, 400, "non-empty"},
		{"/export", url.Values{"match[]": {"up"}, "start": {"5"}, "end": {"1"}}, 400, "end"},
		{"/export", url.Values{"match[]": {"up"}, "after": {"up"}}, 400, "after"},
		{"/export", url.Values{"match[]": {"up"}, "histograms": {"maybe"}}, 400, "histograms"},
		{"/export", url.Values{"match[]": {"up"}, "max_rows_per_line": {"0"}}, 400, "max_rows_per_line"},
		{"/export", url.Values{"match[]": {"up"}, "start": {"0"}, "end": {"7200"}}, 400, "max-total-query-length"},
		{"/export", url.Values{"match[]": {"lat"}, "histograms": {"fail"}}, 422, "native histograms"},
		{"/export", url.Values{"match[]": {"lat"}}, 200, `"histograms":[{"count_float":4,`},
		{"/export/csv", url.Values{"match[]": {"lat"}, "format": {"__value__"}}, 422, "native histograms"},
		{"/export", url.Values{"match[]": {"lat"}, "histograms": {"omit"}}, 200, ""},
		{"/export/csv", url.Values{"match[]": {"up"}}, 400, "format"},
		{"/export/csv", url.Values{"match[]": {"up"}, "format": {"__timestamp__:days"}}, 400, "unit"},
		{"/export/csv", url.Values{"match[]": {"up"}, "format": {"a,,b"}}, 400, "label"},
		{"/export/native", url.Values{"match[]": {"up"}, "start": {"0"}, "end": {"7200"}}, 400, "max-total-query-length"},
	} {
		for k, v := range short {
			if c.form.Get(k) == "" {
				c.form[k] = v
			}
		}
		rec := a.do(exporting(c.path, c.form))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s %v: %d %s, want %d with %q", c.path, c.form, rec.Code, rec.Body, c.status, c.want)
		}
	}
}

func TestExportedNumbersReadAsTheSameBits(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1.5, 0.1, 1e300, 5e-324, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN)} {
		text := string(imports.AppendFloat(nil, v))
		got, ok := map[string]float64{"null": math.NaN(), `"Infinity"`: math.Inf(1), `"-Infinity"`: math.Inf(-1), `"StaleNaN"`: math.Float64frombits(value.StaleNaN)}[text]
		if !ok {
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		if math.Float64bits(got) != math.Float64bits(v) && (!math.IsNaN(v) || value.IsStaleNaN(v)) {
			t.Errorf("%v became %s, which reads as %v", v, text, got)
		}
	}
}

func TestExportsOfCSVHaveTheColumnsThatAreAskedFor(t *testing.T) {
	a := newAPI(t, setup{})
	rec := a.do(exporting("/export/csv", url.Values{"match[]": {`{job=~"a|b"}`}, "start": {"60"}, "end": {"60.5"}, "histograms": {"omit"},
		"format": {"__name__,my.label,code,__value__,__timestamp__,__timestamp__:unix_s,__timestamp__:unix_ns,__timestamp__:rfc3339"}}))
	rows, err := csv.NewReader(rec.Body).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(rows)
	tail := "60000 60 60000000000 1970-01-01T00:01:00.000Z]"
	if want := "[[dotted x  1 " + tail + " [req_total  200 60 " + tail + " [req_total  500 1 " + tail + "]"; got != want || rec.Code != 200 {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := csvText(`a "b", c`); got != `"a ""b"", c"` {
		t.Errorf("%s", got)
	}
}

func TestNativeExportsHaveHistograms(t *testing.T) {
	a := newAPI(t, setup{})
	rec := a.do(exporting("/export/native", url.Values{"match[]": {`{job=~"a|b"}`}, "after": {`{"__name__":"dotted","job":"b","my.label":"x"}`}}))
	names, histograms, floats := "", 0, 0
	for _, f := range frames(t, rec.Body) {
		names += f.ChunkedSeries[0].Labels[0].Value + " "
		for _, c := range f.ChunkedSeries[0].Chunks {
			chk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
			if err != nil {
				t.Fatal(err)
			}
			for it := chk.Iterator(nil); ; {
				kind := it.Next()
				if kind == chunkenc.ValNone {
					break
				}
				if kind == chunkenc.ValFloat {
					floats++
				} else {
					histograms++
				}
			}
		}
	}
	if rec.Code != 200 || names != "lat req_total req_total " || histograms != 11 || floats != 22 {
		t.Errorf("%d: %s with %d histograms and %d floats", rec.Code, names, histograms, floats)
	}
}

// breaking is a storage of many series, which ends with an error.
type breaking struct {
	storage.SampleAndChunkQueryable
	series int
}

// Querier implements storage.Queryable.
func (b breaking) Querier(int64, int64) (storage.Querier, error) {
	return breakingQuerier{storage.NoopQuerier(), b.series}, nil
}

type breakingQuerier struct {
	storage.Querier
	series int
}

// Select implements storage.Querier.
func (q breakingQuerier) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
	return &breakingSet{left: q.series}
}

type breakingSet struct {
	storage.SeriesSet
	left int
}

func (s *breakingSet) Next() bool { s.left--; return s.left >= 0 }
func (s *breakingSet) Err() error {
	if s.left >= 0 {
		return nil
	}
	return errs.New(errs.Unavailable, "the disk is gone")
}
func (s *breakingSet) At() storage.Series {
	return promql.NewStorageSeries(promql.Series{Metric: labels.FromStrings("i", fmt.Sprint(s.left)), Floats: []promql.FPoint{{T: 1, F: 1}}})
}

// TestAnExportThatFailsDoesNotLookWhole breaks the storage before the answer has begun, and after.
func TestAnExportThatFailsDoesNotLookWhole(t *testing.T) {
	for _, path := range []string{"/export", "/export/csv"} {
		for _, encoding := range []string{"identity", "gzip"} {
			for series, begun := range map[int]bool{0: false, 5: false, 10_000: true} {
				a := newAPI(t, setup{store: func(s storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable { return breaking{s, series} }})
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := map[string]func(http.ResponseWriter, *http.Request) error{"/export": a.Export, "/export/csv": a.ExportCSV}[r.URL.Path](w, r); err != nil {
						WriteError(w, err)
					}
				}))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path+"?match[]=up&format=i,__value__", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Accept-Encoding", encoding)
				res, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				var body io.Reader = res.Body
				if res.Header.Get("Content-Encoding") == "gzip" {
					if body, err = gzip.NewReader(res.Body); err != nil {
						t.Fatal(err)
					}
				}
				text, err := io.ReadAll(body)
				_ = res.Body.Close()
				s.Close()
				if (res.StatusCode == 200) != begun || (err != nil) != begun || !strings.Contains(string(text), "the disk is gone") {
					t.Errorf("%s of %d series as %s: status %d, read %v, ends with %q", path, series, encoding, res.StatusCode, err, text[max(0, len(text)-100):])
				}
			}
		}
	}
}

// ChunkQuerier implements storage.ChunkQueryable.
func (b breaking) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	return breakingChunkQuerier{storage.NoopChunkedQuerier(), b.series}, nil
}

type breakingChunkQuerier struct {
	storage.ChunkQuerier
	series int
}

// Select implements storage.ChunkQuerier.
func (q breakingChunkQuerier) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(&breakingSet{left: q.series})
}

// TestFramesThatBreakOffEndWithinAFrame: to HTTP/1.0 every answer ends with the connection, and whoever passes such
// an answer on may think that it is whole.
func TestFramesThatBreakOffEndWithinAFrame(t *testing.T) {
	for _, series := range []int{0, 5} {
		a := newAPI(t, setup{store: func(s storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable { return breaking{s, series} }})
		w := httptest.NewRecorder()
		err := func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = p.(error)
				}
			}()
			return a.ExportNative(w, httptest.NewRequest(http.MethodGet, "/export/native?match[]=up", http.NoBody))
		}()
		if series == 0 {
			if w.Body.Len() > 0 || errs.KindOf(err) != errs.Unavailable {
				t.Errorf("before anything is sent: %v, %d bytes", err, w.Body.Len())
			}
			continue
		}
		if !errors.Is(err, http.ErrAbortHandler) || !w.Flushed {
			t.Errorf("afterwards: %v, flushed %v", err, w.Flushed)
		}
		in, frames := bufio.NewReader(w.Body), 0
		size, err := binary.ReadUvarint(in)
		for ; err == nil; size, err = binary.ReadUvarint(in) {
			frames++
			if _, err := in.Discard(crc32.Size + int(size)); err != nil {
				t.Fatal(err)
			}
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || frames != series {
			t.Errorf("%d frames, then %v", frames, err)
		}
	}
}
