package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// oracleSplit is by what the frontend splits, so that a day has many parts.
const oracleSplit = 5 * time.Hour

// oracle is a Prometheus beside the product, which has the same data for several tenants with different
// settings.
type oracle struct {
	n       *harness.Node
	base    string // of Prometheus
	start   int64  // of the data
	tenants []string
	ways    [][]string // headers to ask with, of each way to ask; nil: there is one, without
	filled  int        // answers with points
	noted   int        // answers with warnings or infos
	several int        // queries that fail for several reasons, of which it is open which one is named
}

func newOracle(ctx context.Context, t *testing.T) *oracle {
	t.Helper()
	dir := t.TempDir()
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte(`overrides:
  plain: {query_sharding_total_shards: 0, results_cache_ttl: 0s}
  sharded: {query_sharding_total_shards: 3, results_cache_ttl: 0s}
  kept: {query_sharding_total_shards: 0, cache_unaligned_requests: true}
  full: {query_sharding_total_shards: 4, cache_unaligned_requests: true, subquery_spin_off_enabled: true, split_instant_queries_by_interval: 1h}
`), 0o600))
	n := everything(ctx, t, "-runtime-config.file="+overrides, "-query-frontend.split-queries-by-interval="+oracleSplit.String(), "-query-frontend.parallelize-shardable-queries",
		"-query-frontend.cache-results", "-querier.query-ingesters-within=0", "-ingester.out-of-order-time-window=500000h", "-validation.name-validation-scheme=utf8",
		"-query-frontend.enabled-promql-experimental-functions=all", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false", "-tenant-federation.enabled")
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: filepath.Join(dir, "prometheus"), Receiver: true, Late: true,
		Features: oracleFeatures()})
	harness.Need(t, err)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	o := &oracle{n: n, base: "http://" + p.Address, tenants: []string{"plain", "sharded", "kept", "full"}}
	o.start = time.Now().Add(-36 * time.Hour).Truncate(time.Hour).UnixMilli()
	data := oracleData(1, o.start)
	for i, req := range data {
		raw, err := req.Marshal()
		must(t, err)
		o.push(ctx, t, raw)
		if i == len(data)/2 { // what is older is in blocks then, and some of it in both
			stored(t, call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil))
			o.push(ctx, t, raw)
		}
		if i == len(data)-1 {
			must(t, p.WriteBlocks(ctx, func() { o.pushThere(ctx, t, raw) }))
		}
	}
	return o
}

// oracleFeatures are those of Prometheus that all of ours are compared to.
func oracleFeatures() []string {
	return []string{"promql-experimental-functions", "promql-duration-expr", "promql-extended-range-selectors", "promql-binop-fill-modifiers", "promql-per-step-stats", "exemplar-storage"}
}

// push sends a request of remote write 1.0 to all.
func (o *oracle) push(ctx context.Context, t *testing.T, raw []byte) {
	t.Helper()
	for _, tenant := range o.tenants {
		keep(ctx, t, o.n.URL(""), tenant, raw)
	}
	o.pushThere(ctx, t, raw)
}

// pushThere sends it to Prometheus alone.
func (o *oracle) pushThere(ctx context.Context, t *testing.T, raw []byte) {
	t.Helper()
	stored(t, call(ctx, t, http.MethodPost, o.base+"/api/v1/write", snappy.Encode(nil, raw), "Content-Type", typeV1, "Content-Encoding", "snappy"))
}

// said is an answer in a form that can be held against another.
type said struct {
	status                 int
	errorType, err, kind   string
	points                 map[string]string
	warnings, infos, order string
	stats                  bool
}

// random is what of a warning depends on the order of series, which is open, or on how often Prometheus
// merged two of them, by which it counts double.
var random = regexp.MustCompile(`(, over )-?\d+( samples from)|(incompatible sample types encountered for binary operator "\S+": )\w+ \S+ \w+`)

// ordered says whether the order of the series of an instant answer has a meaning.
func ordered(c oracleCall) bool {
	return c.path == "query" && strings.HasPrefix(c.form.Get("query"), "sort")
}

func (o *oracle) ask(ctx context.Context, c oracleCall, url, tenant string, header ...string) (said, error) {
	r, err := try(ctx, http.MethodPost, url+"/api/v1/"+c.path, []byte(c.form.Encode()), append([]string{"X-Scope-OrgID", tenant, "Content-Type", "application/x-www-form-urlencoded"}, header...)...)
	if err != nil {
		return said{}, err
	}
	out, err := understand(r, ordered(c))
	if err != nil {
		err = fmt.Errorf("%s %s of %q: %w", c.path, c.form, tenant, err)
	}
	return out, err
}

func understand(r reply, inOrder bool) (said, error) {
	var a struct {
		answered
		ErrorType, Error string
	}
	if err := json.Unmarshal([]byte(r.body), &a); err != nil {
		return said{}, fmt.Errorf("%s is no answer: %w", r, err)
	}
	out := said{status: r.status, errorType: a.ErrorType, err: a.Error, kind: a.Data.ResultType, points: map[string]string{}, stats: strings.Contains(r.body, `"stats":`)}
	out.warnings, out.infos = noteLines(a.Warnings), noteLines(a.Infos)
	var list []jsonSeries
	if out.kind == "scalar" || out.kind == "string" {
		out.points[""] = string(a.Data.Result)
		return out, nil
	}
	if len(a.Data.Result) > 0 {
		if err := json.Unmarshal(a.Data.Result, &list); err != nil {
			return out, err
		}
	}
	for _, s := range list {
		key := name(s.Metric)
		if inOrder {
			out.order += fmt.Sprint(s.Value) + "\n"
		}
		for _, p := range slices.Concat([][]any{s.Value, s.Histogram}, s.Values, s.Histograms) {
			if p == nil {
				continue
			}
			at, _ := p[0].(float64)
			key := key + "@" + fmt.Sprint(int64(math.Round(at*1000)))
			if _, twice := out.points[key]; twice {
				key += " again" // where label_replace makes one series of floats and histograms, Prometheus shows both
			}
			out.points[key] = jsonText(p[1])
		}
	}
	return out, nil
}

// noteLines are warnings in an order of their own. Of more than ten it is open which are shown.
func noteLines(list []string) string {
	if n := len(list); n > 10 {
		return fmt.Sprintf("%d, %s", n, list[n-1])
	}
	for i := range list {
		list[i] = random.ReplaceAllString(list[i], "${1}${3}some${2}")
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// unlike says how two answers differ; empty: not at all.
func unlike(got, want said, limited bool) string {
	switch {
	case got.status != want.status || got.errorType != want.errorType || plainError(got.err) != plainError(want.err):
		return fmt.Sprintf("answered %d %s %q, want %d %s %q", got.status, got.errorType, got.err, want.status, want.errorType, want.err)
	case got.warnings != want.warnings:
		return fmt.Sprintf("warnings\n%s\nwant\n%s", got.warnings, want.warnings)
	case got.infos != want.infos:
		return fmt.Sprintf("infos\n%s\nwant\n%s", got.infos, want.infos)
	case got.kind != want.kind || len(got.points) != len(want.points):
		return fmt.Sprintf("%s of %d points, want %s of %d:\n%.1500v\nwant\n%.1500v", got.kind, len(got.points), want.kind, len(want.points), got.points, want.points)
	case got.stats != want.stats:
		return fmt.Sprintf("statistics %v, want %v", got.stats, want.stats)
	}
	if limited {
		return ""
	}
	for k, w := range want.points {
		if g, ok := got.points[k]; !ok || g != w && !sameNumbers(g, w) && !bothNothing(g, w) {
			return fmt.Sprintf("%s = %s, want %s", k, g, w)
		}
	}
	if got.order != want.order && !sameNumbers(got.order, want.order) {
		return fmt.Sprintf("the order is\n%s\nwant\n%s", got.order, want.order)
	}
	return ""
}

// bothNothing says whether two numbers are what sums of histograms leave of nothing.
func bothNothing(a, b string) bool {
	f, err1 := strconv.ParseFloat(a, 64)
	g, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && math.Abs(f) < 1e-12 && math.Abs(g) < 1e-12
}

// plainError is an error without the series it names: of several, it is open which ones.
func plainError(text string) string {
	text, _, _ = strings.Cut(text, "{")
	return text
}

// compare asks all tenants and returns how one of them differs.
func (o *oracle) compare(ctx context.Context, c oracleCall) error {
	return o.compareAt(ctx, c, o.n.URL("/prometheus"))
}

// compareAt is compare of the tenants of another server.
func (o *oracle) compareAt(ctx context.Context, c oracleCall, url string) error {
	want, err := o.ask(ctx, c, o.base, "")
	if err != nil {
		return err
	}
	if len(want.points) > 0 {
		o.filled++
	}
	if want.warnings+want.infos != "" {
		o.noted++
	}
	// Which series are cut off is open, and so is the last digit of what becomes a label.
	limited := c.form.Get("limit") != "" && c.form.Get("limit") != "0" || strings.Contains(c.form.Get("query"), "limitk") || strings.Contains(c.form.Get("query"), "count_values")
	ways := o.ways
	if ways == nil {
		ways = [][]string{nil}
	}
	for _, tenant := range o.tenants {
		for _, way := range ways {
			got, err := o.ask(ctx, c, url, tenant, way...)
			if err != nil {
				return err
			}
			diff, err := o.differ(ctx, c, got, want, limited)
			if err != nil {
				return err
			}
			if diff != "" && got.status == want.status && want.errorType == "execution" && got.errorType == want.errorType {
				o.several++
				continue
			}
			if diff != "" {
				return fmt.Errorf("tenant %s %q: %s %s\n%s", tenant, way, c.path, c.form, diff)
			}
		}
	}
	return nil
}

// differ says how two answers differ; empty: not at all, or no more than those of Prometheus itself, where values tie or
// sums depend on their order.
func (o *oracle) differ(ctx context.Context, c oracleCall, got, want said, limited bool) (string, error) {
	diff := unlike(got, want, limited)
	for range 15 {
		if diff == "" {
			break
		}
		again, err := o.ask(ctx, c, o.base, "")
		if err != nil {
			return "", err
		}
		if unlike(again, want, limited) != "" || unlike(got, again, limited) == "" {
			diff = ""
		}
	}
	return diff, nil
}

// TestGeneratedQueriesAnswerAsOnAPrometheusBesideUs asks the process and a Prometheus with the same data
// queries of all kinds. AMPHORA_ORACLE_FOR=10m makes it go on for as long, from seeds that it prints.
func TestGeneratedQueriesAnswerAsOnAPrometheusBesideUs(t *testing.T) {
	t.Parallel()
	long, _ := time.ParseDuration(os.Getenv("AMPHORA_ORACLE_FOR"))
	ctx := bounded(t, 4*time.Minute+long)
	o := newOracle(ctx, t)
	seeds, seed := 150, uint64(1)
	if s := os.Getenv("AMPHORA_ORACLE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	asked, wrong := 0, 0
	for begin := time.Now(); seeds > 0 || time.Since(begin) < long; seed, seeds = seed+1, seeds-1 {
		g := oracleGrammar{rand.New(rand.NewPCG(seed, 2))}
		for _, c := range g.call(o.start) {
			asked++
			if err := o.compare(ctx, c); err != nil {
				wrong++
				t.Errorf("seed %d: %v", seed, err)
				break
			}
		}
		if wrong >= 40 {
			break
		}
	}
	t.Logf("%d requests were compared, of which %d have points, %d warnings or infos; %d differ, %d fail for several reasons; the last seed is %d", asked, o.filled, o.noted, wrong, o.several, seed-1)
	if o.several > asked/200+1 {
		t.Error("too many fail for several reasons")
	}
}
