package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// shopMetrics is one metric of each kind, as an instrumented process has them at the time at.
func shopMetrics(at time.Time) pmetric.Metrics {
	ts, start := pcommon.NewTimestampFromTime(at), pcommon.NewTimestampFromTime(at.Add(-time.Minute))
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	for k, v := range map[string]string{"service.name": "checkout", "service.namespace": "shop", "service.instance.id": "pod-1", "deployment.environment": "prod"} {
		rm.Resource().Attributes().PutStr(k, v)
	}
	ms := rm.ScopeMetrics().AppendEmpty().Metrics()
	add := func(name, unit string) pmetric.Metric {
		m := ms.AppendEmpty()
		m.SetName(name)
		m.SetUnit(unit)
		m.SetDescription("About " + name + ".")
		return m
	}
	g := add("room.temperature", "Cel").SetEmptyGauge().DataPoints().AppendEmpty()
	g.SetTimestamp(ts)
	g.SetDoubleValue(21.5)
	g.Attributes().PutStr("room.name", "kitchen")

	s := add("http.requests", "1").SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := s.DataPoints().AppendEmpty()
	p.SetTimestamp(ts)
	p.SetStartTimestamp(start)
	p.SetIntValue(42)
	exemplar(p.Exemplars().AppendEmpty(), ts, 1)

	h := add("http.duration", "s").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	x := h.DataPoints().AppendEmpty()
	x.SetTimestamp(ts)
	x.SetStartTimestamp(start)
	x.ExplicitBounds().FromRaw([]float64{0.1, 1})
	x.BucketCounts().FromRaw([]uint64{3, 2, 1})
	x.SetCount(6)
	x.SetSum(4.5)
	exemplar(x.Exemplars().AppendEmpty(), ts, 0.5)

	e := add("queue.wait", "s").SetEmptyExponentialHistogram()
	e.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	y := e.DataPoints().AppendEmpty()
	y.SetTimestamp(ts)
	y.SetStartTimestamp(start)
	y.SetScale(2)
	y.SetZeroCount(1)
	y.Positive().SetOffset(-2)
	y.Positive().BucketCounts().FromRaw([]uint64{2, 0, 0, 0, 4})
	y.SetCount(7)
	y.SetSum(5)
	return md
}

func exemplar(x pmetric.Exemplar, ts pcommon.Timestamp, v float64) {
	x.SetTimestamp(ts)
	x.SetDoubleValue(v)
	x.SetTraceID([16]byte{1, 2, 3})
	x.SetSpanID([8]byte{4})
}

// otlpBody encodes md as an export request.
func otlpBody(t *testing.T, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	must(t, err)
	return b
}

// partial is what a 200 says was refused.
func partial(t *testing.T, r reply) pmetricotlp.ExportPartialSuccess {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("export answered %s", r)
	}
	out := pmetricotlp.NewExportResponse()
	must(t, out.UnmarshalProto([]byte(r.body)))
	return out.PartialSuccess()
}

// scalar asks for the value of an expression that has one series.
func scalar(ctx context.Context, base, tenant, expr string, at time.Time) (float64, error) {
	series, err := matrix(ctx, base, tenant, expr, at.UnixMilli())
	if err != nil {
		return 0, err
	}
	if len(series) != 1 || len(series[0].Value) != 2 {
		return 0, fmt.Errorf("%s has %d series", expr, len(series))
	}
	return strconv.ParseFloat(fmt.Sprint(series[0].Value[1]), 64)
}

// isShop checks that the metrics of shopMetrics are stored as Prometheus names them.
func isShop(ctx context.Context, base, tenant string, at time.Time) error {
	for expr, want := range map[string]float64{
		`room_temperature_celsius{room_name="kitchen",job="shop/checkout",instance="pod-1"}`: 21.5,
		`http_requests_total{job="shop/checkout"}`:                                           42,
		`http_duration_seconds_bucket{le="0.1"}`:                                             3,
		`http_duration_seconds_bucket{le="1"}`:                                               5,
		`http_duration_seconds_bucket{le="+Inf"}`:                                            6,
		`http_duration_seconds_count`:                                                        6,
		`http_duration_seconds_sum`:                                                          4.5,
		`histogram_count(queue_wait_seconds)`:                                                7,
		`histogram_sum(queue_wait_seconds)`:                                                  5,
		// Of scale 2, the buckets -2 and 2: 2^(-2/4) to 2^(-1/4) and 2^(2/4) to 2^(3/4).
		fmt.Sprintf(`histogram_fraction(%g, %g, queue_wait_seconds) * 7`, math.Exp2(-2.0/4), math.Exp2(-1.0/4)):                   2,
		fmt.Sprintf(`histogram_fraction(%g, %g, queue_wait_seconds) * 7`, math.Exp2(2.0/4), math.Exp2(3.0/4)):                     4,
		`http_requests_total * on (job, instance) group_left (deployment_environment) target_info{deployment_environment="prod"}`: 42,
	} {
		got, err := scalar(ctx, base, tenant, expr, at)
		if err != nil {
			return err
		}
		if math.Abs(got-want) > 1e-9 {
			return fmt.Errorf("%s is %g, want %g", expr, got, want)
		}
	}
	return nil
}

// hasExemplars checks that the exemplars of shopMetrics are stored.
func hasExemplars(ctx context.Context, base, tenant string, at time.Time) error {
	for _, expr := range []string{"http_requests_total", `http_duration_seconds_bucket{le="1"}`} {
		r, err := try(ctx, http.MethodGet, base+"/prometheus/api/v1/query_exemplars?"+url.Values{"query": {expr},
			"start": {seconds(at.Add(-time.Hour).UnixMilli())}, "end": {seconds(at.Add(time.Hour).UnixMilli())}}.Encode(), nil, "X-Scope-OrgID", tenant)
		if err != nil {
			return err
		}
		if !strings.Contains(r.body, `"trace_id":"01020300000000000000000000000000"`) {
			return fmt.Errorf("exemplars of %s: %s", expr, r)
		}
	}
	return nil
}

// TestOTLPIsStored pushes each kind of metric by OTLP over HTTP and asks for it.
func TestOTLPIsStored(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-distributor.otel-metric-suffixes-enabled=true", "-ingester.max-global-exemplars-per-user=100",
		"-distributor.otel-created-timestamp-zero-ingestion-enabled=true")
	at := time.Now()
	for tenant, path := range map[string]string{"a": "/otlp/v1/metrics", "b": "/api/v1/otlp/v1/metrics", "c": "/opentelemetry/v1/metrics"} {
		r := call(ctx, t, http.MethodPost, n.URL(path), otlpBody(t, shopMetrics(at)), "X-Scope-OrgID", tenant, "Content-Type", "application/x-protobuf")
		if p := partial(t, r); p.RejectedDataPoints() != 0 || p.ErrorMessage() != "" {
			t.Errorf("%s: %d points rejected: %s", path, p.RejectedDataPoints(), p.ErrorMessage())
		}
		must(t, isShop(ctx, n.URL(""), tenant, at))
		must(t, hasExemplars(ctx, n.URL(""), tenant, at))
	}
	// The start of a series is a zero, so that its first increase is seen.
	got, err := scalar(ctx, n.URL(""), "a", `increase(http_requests_total[2m]) > bool 30`, at)
	if err != nil || got != 1 {
		t.Errorf("increase from the start: %g, %v", got, err)
	}
	if n := scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_otlp_requests_total", "user", "a"); n != 1 {
		t.Errorf("%g requests counted, want 1", n)
	}

	// A part that is refused does not cost the rest.
	md := shopMetrics(at.Add(time.Second))
	md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(1).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	r := call(ctx, t, http.MethodPost, n.URL("/otlp/v1/metrics"), otlpBody(t, md), "X-Scope-OrgID", "a", "Content-Type", "application/x-protobuf")
	if p := partial(t, r); p.RejectedDataPoints() != 1 || !strings.Contains(p.ErrorMessage(), "delta temporality") {
		t.Errorf("%d points rejected: %s", p.RejectedDataPoints(), p.ErrorMessage())
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/otlp/v1/metrics"), otlpBody(t, md), "Content-Type", "application/x-protobuf"); r.status != http.StatusUnauthorized {
		t.Errorf("without tenant: %s", r)
	}
}

// TestACollectorSendsByEveryProtocol: a real OpenTelemetry collector takes metrics and sends them on by
// OTLP over gRPC, plain and packed, OTLP over HTTP, and remote write, each for a tenant of its own.
func TestACollectorSendsByEveryProtocol(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	grpcPort := freePort(t)
	n := everything(ctx, t, "-distributor.otel-metric-suffixes-enabled=true", "-ingester.max-global-exemplars-per-user=100",
		"-server.otlp-grpc-listen-address=127.0.0.1", "-server.otlp-grpc-listen-port="+strconv.Itoa(grpcPort))
	main := strings.TrimPrefix(n.URL(""), "http://")
	type object = map[string]any
	as := func(tenant string) object { return object{"X-Scope-OrgID": tenant} }
	tls := object{"insecure": true}
	c, err := harness.StartCollector(ctx, harness.TestLog(t), harness.CollectorOptions{Dir: t.TempDir(), Exporters: object{
		"otlp/own":              object{"endpoint": fmt.Sprintf("127.0.0.1:%d", grpcPort), "tls": tls, "headers": as("own")},
		"otlp/main":             object{"endpoint": main, "tls": tls, "headers": as("main"), "compression": "none"},
		"otlp/zstd":             object{"endpoint": main, "tls": tls, "headers": as("zstd"), "compression": "zstd"},
		"otlp/snappy":           object{"endpoint": main, "tls": tls, "headers": as("snappy"), "compression": "snappy"},
		"otlphttp/gzip":         object{"metrics_endpoint": n.URL("/otlp/v1/metrics"), "headers": as("http")},
		"otlphttp/json":         object{"metrics_endpoint": n.URL("/otlp/v1/metrics"), "headers": as("json"), "encoding": "json", "compression": "zstd"},
		"otlphttp/lz4":          object{"metrics_endpoint": n.URL("/otlp/v1/metrics"), "headers": as("lz4"), "compression": "lz4"},
		"otlphttp/snappy":       object{"metrics_endpoint": n.URL("/otlp/v1/metrics"), "headers": as("snappyhttp"), "compression": "x-snappy-framed"},
		"prometheusremotewrite": object{"endpoint": n.URL("/api/v1/push"), "headers": as("write")},
	}})
	if c != nil {
		t.Cleanup(func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("log of the collector ends:\n%s", c.Tail())
			}
		})
	}
	harness.Need(t, err)
	at := time.Now()
	r := call(ctx, t, http.MethodPost, c.Metrics, otlpBody(t, shopMetrics(at)), "Content-Type", "application/x-protobuf")
	if r.status != http.StatusOK {
		t.Fatalf("the collector answers %s", r)
	}
	for _, tenant := range []string{"own", "main", "zstd", "snappy", "http", "json", "lz4", "snappyhttp", "write"} {
		eventually(ctx, t, "tenant "+tenant+" has everything", func() error {
			if err := isShop(ctx, n.URL(""), tenant, at); err != nil {
				return err
			}
			return hasExemplars(ctx, n.URL(""), tenant, at)
		})
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ports, err := new(harness.Ports).Free(1)
	must(t, err)
	return ports[0]
}

// TestDeltasAreAddedUp: one process makes cumulative series of what a sender tells as changes, however
// often it tells it.
func TestDeltasAreAddedUp(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-distributor.otel-delta-to-cumulative-enabled=true", "-distributor.otel-metric-suffixes-enabled=true")
	at := time.Now().Add(-time.Minute)
	send := func(from, to int) {
		t.Helper()
		md := shopMetrics(at.Add(time.Duration(to) * time.Second))
		ms := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
		start := pcommon.NewTimestampFromTime(at.Add(time.Duration(from) * time.Second))
		ms.At(1).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		ms.At(1).Sum().DataPoints().At(0).SetStartTimestamp(start)
		ms.At(2).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		ms.At(2).Histogram().DataPoints().At(0).SetStartTimestamp(start)
		ms.At(3).ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		ms.At(3).ExponentialHistogram().DataPoints().At(0).SetStartTimestamp(start)
		r := call(ctx, t, http.MethodPost, n.URL("/otlp/v1/metrics"), otlpBody(t, md), "X-Scope-OrgID", "a", "Content-Type", "application/x-protobuf")
		if p := partial(t, r); p.RejectedDataPoints() != 0 {
			t.Errorf("%d points rejected: %s", p.RejectedDataPoints(), p.ErrorMessage())
		}
	}
	for _, to := range []int{10, 20, 20, 30} { // one of them twice
		send(to-10, to)
	}
	for expr, want := range map[string]float64{
		`http_requests_total`: 3 * 42, `http_duration_seconds_bucket{le="1"}`: 3 * 5, `http_duration_seconds_sum`: 3 * 4.5,
		`histogram_count(queue_wait_seconds)`: 3 * 7, `count_over_time(http_requests_total[1m])`: 3, `resets(http_requests_total[1m])`: 0,
	} {
		if got, err := scalar(ctx, n.URL(""), "a", expr, at.Add(31*time.Second)); err != nil || got != want {
			t.Errorf("%s is %g, %v; want %g", expr, got, err, want)
		}
	}
	if n := scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_otlp_delta_streams"); n != 3 {
		t.Errorf("%g streams, want 3", n)
	}
}

// TestDeltasAreAddedUpBySeveralDistributors, whichever of them a sender goes to, and when one of them dies.
func TestDeltasAreAddedUpBySeveralDistributors(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1,
		Flags: []string{"-distributor.otel-delta-to-cumulative-enabled=true", "-distributor.otel-created-timestamp-zero-ingestion-enabled=true",
			"-distributor.ring.heartbeat-period=1s", "-distributor.ring.heartbeat-timeout=6s"},
		Nodes: []harness.Spec{{Name: "store", Target: "ingester,querier"},
			{Name: "distributor-0", Target: "distributor"}, {Name: "distributor-1", Target: "distributor"}, {Name: "distributor-2", Target: "distributor"}}})
	nodes, store := c.Of("distributor"), c.Node("store")
	for _, n := range nodes {
		eventually(ctx, t, n.Spec.Name+" to know all distributors", func() error {
			members, err := ringOf(ctx, n.URL("/distributor/ring"))
			for _, other := range nodes {
				if m := members[other.Spec.Name]; err == nil && m.State != "ACTIVE" {
					err = fmt.Errorf("it sees %+v as %s", m, other.Spec.Name)
				}
			}
			return err
		})
	}
	begin := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
	const series = 60
	sent, round := 0.0, 0
	// send tells of ten seconds, of which it hears that they are stored, from one distributor or the next.
	send := func(rounds int) {
		for range rounds {
			round++
			at := begin.Add(time.Duration(round) * 10 * time.Second)
			body := changes(t, at.Add(-10*time.Second), at, series, int64(round))
			sent += float64(round)
			turn, refusal := round, reply{}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			err := harness.Poll(ctx, func(ctx context.Context) error {
				n := nodes[turn%len(nodes)]
				turn++
				r, err := try(ctx, http.MethodPost, n.URL("/otlp/v1/metrics"), body, "X-Scope-OrgID", "a", "Content-Type", "application/x-protobuf")
				if err == nil && r.status != http.StatusOK {
					refusal = r
					err = fmt.Errorf("%s answers %s", n.Spec.Name, r)
				}
				return err
			})
			cancel()
			if err != nil {
				t.Fatalf("round %d: %v; the last refusal is %s", round, err, refusal)
			}
			if refusal.status != 0 && refusal.status != http.StatusServiceUnavailable {
				t.Errorf("round %d was refused with %s", round, refusal)
			}
		}
	}
	// counted asserts that each series rose by what was sent.
	counted := func() {
		t.Helper()
		end := begin.Add(time.Duration(round+1) * 10 * time.Second).UnixMilli()
		got, err := raw(ctx, store.URL(""), "a", "requests_total", begin.UnixMilli()-1000, end)
		must(t, err)
		if len(got) != series {
			t.Fatalf("%d series, want %d", len(got), series)
		}
		for name, list := range got {
			rose, last := 0.0, 0.0
			for _, s := range list {
				if s.v < last {
					last = 0
				}
				rose, last = rose+s.v-last, s.v
			}
			if rose != sent {
				t.Errorf("%s rose by %g, want %g: %v", name, rose, sent, list)
			}
		}
	}
	send(20)
	counted()
	streams := func(nodes []*harness.Node) (all float64, each []float64) {
		for _, n := range nodes {
			each = append(each, scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_otlp_delta_streams"))
			all += each[len(each)-1]
		}
		return all, each
	}
	if all, each := streams(nodes); all != series || slices.Contains(each, 0) {
		t.Errorf("the distributors add up %v series, want %d altogether and each some", each, series)
	}
	dead := nodes[2]
	must(t, dead.Kill())
	killed := time.Now()
	nodes = nodes[:2]
	send(1)
	took := time.Since(killed)
	send(20)
	counted()
	must(t, dead.Start())
	must(t, dead.WaitReady(ctx))
	nodes = append(nodes, dead)
	send(20)
	counted()
	handed := 0.0
	for _, n := range nodes {
		handed += scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_otlp_delta_handovers_total", "outcome", "success")
	}
	if handed < 60 {
		t.Errorf("%g parts were handed on", handed)
	}
	t.Logf("after a distributor died, senders were answered 503 for %s", took)
}

// changes is a request that tells of n counters which rose by v.
func changes(t *testing.T, from, to time.Time, n int, v int64) []byte {
	t.Helper()
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("requests_total")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	for i := range n {
		p := sum.DataPoints().AppendEmpty()
		p.Attributes().PutInt("i", int64(i))
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(from))
		p.SetTimestamp(pcommon.NewTimestampFromTime(to))
		p.SetIntValue(v)
	}
	return otlpBody(t, md)
}
