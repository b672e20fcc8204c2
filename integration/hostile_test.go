package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphora-metrics/amphora/integration/harness"
)

const (
	// mostExtra is what hostile input may add to the peak of a process's memory.
	mostExtra = 256 << 20
	// soon is when a refusal must be there; it costs next to nothing, but the machine may be busy.
	soon = 10 * time.Second
)

// harmless runs do and asserts that the process of n lives and never needed much more memory than
// before.
func harmless(ctx context.Context, t *testing.T, n *harness.Node, do func()) {
	t.Helper()
	before := peakMemory(t, n)
	begin := time.Now()
	do()
	if took := time.Since(begin); took > soon {
		t.Errorf("answered after %s", took.Round(time.Millisecond))
	}
	if n.PID() == 0 {
		t.Fatal("the process died")
	}
	must(t, n.WaitReady(ctx))
	if extra := peakMemory(t, n) - before; extra > mostExtra {
		t.Errorf("the peak of the process's memory rose by %d MiB", extra>>20)
	}
}

// TestBodiesThatGrowAreRefused sends small bodies that would be large when read naively.
func TestBodiesThatGrowAreRefused(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-distributor.ingestion-burst-size=10000000", "-distributor.ingestion-rate-limit=0")
	base, now := n.URL(""), time.Now()
	// One symbol of 1 MiB, named by a thousand labels: 1 GiB when expanded.
	symbols := []string{"", "__name__", "good", strings.Repeat("x", 1<<20)}
	refs := []uint32{1, 2}
	for i := range 1000 {
		symbols = append(symbols, fmt.Sprintf("label_%04d", i))
		refs = append(refs, uint32(len(symbols)-1), 3)
	}
	expanded := request2(now, symbols, refs...)
	t.Run("labels that share a large symbol", func(t *testing.T) {
		harmless(ctx, t, n, func() { refused(t, pushV2(ctx, t, base, "bombs", expanded), 400, "max-label-names-per-series") })
	})
	t.Run("series that share a large symbol", func(t *testing.T) {
		req := &writev2.Request{Symbols: symbols}
		for i := range 1000 {
			req.Timeseries = append(req.Timeseries, request2(now, nil, 1, 2, uint32(4+i), 3).Timeseries...)
		}
		harmless(ctx, t, n, func() { refused(t, pushV2(ctx, t, base, "bombs", req), 400, "label-value-too-long") })
	})
	t.Run("a million references in one series", func(t *testing.T) {
		req := request2(now, symbols[:4])
		for range 1 << 20 {
			req.Timeseries[0].LabelsRefs = append(req.Timeseries[0].LabelsRefs, 1, 3)
		}
		harmless(ctx, t, n, func() { refused(t, pushV2(ctx, t, base, "bombs", req), 400, "") })
	})
	t.Run("help text that many series share", func(t *testing.T) {
		req := &writev2.Request{Symbols: symbols}
		for i := range 1000 {
			s := request2(now, nil, 1, uint32(4+i)).Timeseries[0]
			s.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: 3}
			req.Timeseries = append(req.Timeseries, s)
		}
		harmless(ctx, t, n, func() { stored(t, pushV2(ctx, t, base, "help", req)) })
	})
	t.Run("exemplars that share a large symbol", func(t *testing.T) {
		req := request2(now, symbols, 1, 2)
		for i := range 1000 {
			req.Timeseries[0].Exemplars = append(req.Timeseries[0].Exemplars, writev2.Exemplar{LabelsRefs: []uint32{uint32(4 + i), 3}, Timestamp: now.UnixMilli()})
		}
		harmless(ctx, t, n, func() { stored(t, pushV2(ctx, t, base, "bombs", req)) })
	})
	t.Run("zeros that snappy packs", func(t *testing.T) {
		body := snappy.Encode(nil, make([]byte, 100<<20))
		harmless(ctx, t, n, func() {
			refused(t, call(ctx, t, http.MethodPost, base+"/api/v1/push", body, "X-Scope-OrgID", "bombs"), 400, "")
		})
	})
	for _, encoding := range []string{"zstd", "gzip"} {
		t.Run("zeros that "+encoding+" packs", func(t *testing.T) {
			body := zeros(t, encoding, 512<<20)
			harmless(ctx, t, n, func() {
				refused(t, call(ctx, t, http.MethodPost, base+"/api/v1/push", body, "X-Scope-OrgID", "bombs", "Content-Encoding", encoding), 400, "distributor-max-write-message-size")
			})
		})
	}
	t.Run("remote read that declares 4 GiB", func(t *testing.T) {
		body := append(protowire.AppendVarint(nil, math.MaxUint32), 0, 0, 0, 0, 0)
		harmless(ctx, t, n, func() {
			if r := call(ctx, t, http.MethodPost, base+"/prometheus/api/v1/read", body, "X-Scope-OrgID", "bombs"); r.status/100 != 4 {
				t.Errorf("answered %s", r)
			}
		})
	})
	t.Run("empty series", func(t *testing.T) {
		body := []byte(strings.Repeat("\x0a\x00", 1<<20)) // a million time series of no bytes
		harmless(ctx, t, n, func() { stored(t, pushBytes(ctx, t, base, "bombs", typeV1, body)) })
	})
}

// zeros packs n of them.
func zeros(t *testing.T, encoding string, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if encoding == "zstd" {
		var err error
		w, err = zstd.NewWriter(&out)
		must(t, err)
	}
	block := make([]byte, 1<<20)
	for range n / len(block) {
		_, err := w.Write(block)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

// TestQueriesOfDeathAreRefused asks for what would take the memory of the machine or days.
func TestQueriesOfDeathAreRefused(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	var series []prompb.TimeSeries
	for i := range 100 {
		series = append(series, floats(time.Now(), 1, "__name__", "up", "i", fmt.Sprint(i)))
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	doubled := `up`
	for range 25 {
		doubled = `label_replace(` + doubled + `, "x", "$1$1", "x", "(.*)")`
	}
	joined := `label_replace(up, "x", "0123456789", "", "")`
	for range 25 {
		joined = `label_join(` + joined + `, "x", "", "x", "x")`
	}
	for _, c := range []struct {
		name, query string
		status      int
	}{
		{"a subquery of a hundred years", `count_over_time(vector(1)[100y:1ms])`, 422},
		{"the same of a series", `count_over_time(up[100y:1ms])`, 422},
		{"the points of a subquery", `vector(1)[10y:1ms]`, 422},
		{"three nested subqueries", `sum_over_time(sum_over_time(sum_over_time(up[1y:1s])[1y:1s])[1y:1s])`, 422},
		{"a label doubled 25 times", doubled, 422},
		{"a label joined to itself 25 times", joined, 422},
		{"100,000 parentheses", strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000), 400},
		{"100,000 open parentheses", strings.Repeat("(", 100_000), 400},
		{"100,000 signs", strings.Repeat("-", 100_000) + "1", 400},
		{"100,000 sums", "1" + strings.Repeat("+1", 100_000), 400},
		{"100,000 brackets", strings.Repeat("[", 100_000), 400},
		{"a million of nothing", strings.Repeat(" ", 1<<20), 400},
		{"a name of a million letters", strings.Repeat("a", 1<<20) + "{", 400},
		{"regular expression that repeats itself", `{__name__=~"((a{1000}){1000}){1000}"}`, 400},
		{"regular expression of a million letters", `{__name__=~"(` + strings.Repeat("a", 1<<20) + `"}`, 400},
		{"everything of all time", `{__name__=~".*"}`, 400},
		{"no end of a string", `"` + strings.Repeat(`\`, 99_999), 400},
		{"not UTF-8", "up{a=\"\xff\xfe\"", 400},
		{"an offset beyond time", `up offset 100000000000y`, 400},
		{"a time beyond time", `up @ 1e30`, 400},
		{"a range of no length", `rate(up[0s])`, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			harmless(ctx, t, n, func() {
				form := url.Values{"query": {c.query}, "timeout": {"10s"}}
				r := call(ctx, t, http.MethodPost, n.URL("/prometheus/api/v1/query"), []byte(form.Encode()),
					"Content-Type", "application/x-www-form-urlencoded", "X-Scope-OrgID", "team-a")
				if r.status != c.status || !strings.Contains(r.body, `"status":"error"`) {
					t.Errorf("answered %s; want %d", r, c.status)
				}
			})
		})
	}
	nested := strings.Repeat("(", 5000) + "up" + strings.Repeat(")", 5000) // fits into a URL
	for _, door := range []string{"query_range?start=1&end=2&step=1&query=", "query_exemplars?start=1&end=2&query=", "format_query?query=",
		"parse_query?query=", "series?match[]=", "labels?match[]=", "label/x/values?match[]="} {
		t.Run(door, func(t *testing.T) {
			harmless(ctx, t, n, func() {
				path, parameter, _ := strings.Cut(door, "?")
				form := parameter + url.QueryEscape(nested)
				target, method, body := n.URL("/prometheus/api/v1/"+path), http.MethodPost, form
				if strings.HasPrefix(path, "label/") {
					target, method, body = target+"?"+form, http.MethodGet, ""
				}
				r := call(ctx, t, method, target, []byte(body), "Content-Type", "application/x-www-form-urlencoded", "X-Scope-OrgID", "team-a")
				if r.status != http.StatusBadRequest {
					t.Errorf("answered %s; want 400", r)
				}
			})
		})
	}
	has(ctx, t, n.URL(""), "team-a", "up", 100)
}

// TestRangesAndFormsAreBounded asks through every door of the query API for more than there is.
func TestRangesAndFormsAreBounded(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "up")))
	end := time.Now().Unix() + 1 // not before the sample
	for _, c := range []struct {
		name, path string
		status     int
		text       string
	}{
		{"11,000 points", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=1", end-11_000, end), 200, `"status":"success"`},
		{"11,001 points", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=1", end-11_001, end), 400, "exceeded maximum resolution of 11,000 points per timeseries"},
		{"the end before the start", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=1", end, end-1), 400, `invalid parameter \"end\"`},
		{"no step", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=0", end-1, end), 400, `invalid parameter \"step\"`},
		{"a negative step", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=-1", end-1, end), 400, `invalid parameter \"step\"`},
		{"a step of a nanosecond", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=1ns", end-1, end), 400, `invalid parameter \"step\"`},
		{"a step that is no number", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=NaN", end-1, end), 400, `invalid parameter \"step\"`},
		{"a time that is no number", "query?query=up&time=NaN", 400, `invalid parameter \"time\"`},
		{"a time beyond time", "query?query=up&time=1e300", 400, `invalid parameter \"time\"`},
		{"a lookback that is no duration", "query?query=up&lookback_delta=x", 400, `lookback`},
		{"a timeout that is no duration", "query?query=up&timeout=x", 400, `invalid parameter \"timeout\"`},
		{"a limit that is no number", "query?query=up&limit=x", 400, `invalid parameter \"limit\"`},
		{"no query", "query", 400, `invalid parameter \"query\"`},
		{"a range of all time", fmt.Sprintf("query_range?query=up&start=%d&end=%d&step=800000", end-8_000_000_000, end), 200, `"up"`},
		{"no matcher", "series", 400, `no match[] parameter provided`},
		{"an empty matcher", "series?match[]={}", 400, `invalid parameter`},
		{"a matcher that is none", "labels?match[]=up{", 400, `parse error`},
		{"a label name that is none", "label/%FF/values", 400, `invalid label name`},
		{"no such path", "nothing", 404, `nothing`},
		{"no such path of Prometheus", "admin/tsdb/snapshot", 404, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			harmless(ctx, t, n, func() {
				r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+c.path), nil, "X-Scope-OrgID", "team-a")
				if r.status != c.status || !strings.Contains(r.body, c.text) {
					t.Errorf("answered %s; want %d and %q", r, c.status, c.text)
				}
			})
		})
	}
	t.Run("a form of 11 MiB", func(t *testing.T) {
		harmless(ctx, t, n, func() {
			r, err := try(ctx, http.MethodPost, n.URL("/prometheus/api/v1/query"), []byte("query="+strings.Repeat("a", 11<<20)),
				"Content-Type", "application/x-www-form-urlencoded", "X-Scope-OrgID", "team-a")
			if err == nil && r.status != http.StatusRequestEntityTooLarge { // the server may cut the connection before the form was sent
				t.Errorf("answered %s; want 413", r)
			}
		})
	})
	t.Run("headers of 2 MiB", func(t *testing.T) {
		harmless(ctx, t, n, func() {
			r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/query?query=1"), nil, "X-Scope-OrgID", "team-a", "X-Large", strings.Repeat("a", 2<<20))
			if err == nil && r.status != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("answered %s; want 431", r)
			}
		})
	})
}
