package distributor

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

func TestSeriesAreDefinedOnceAndReplicated(t *testing.T) {
	for name, o := range map[string]clusterOptions{
		"one process":    {replicas: 1, instances: 1},
		"three of three": {replicas: 3, instances: 3},
		"three of seven": {replicas: 3, instances: 7},
		"zones":          {replicas: 3, instances: 9, zones: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, o)
			series := remotewritetest.Series(500)
			v1 := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series, 1, c.clock.Load())}
			for round, want := range []int{500 * o.replicas, 0, 0} {
				w, err := c.push(v1)
				if err != nil || w.Samples != 500 {
					t.Fatalf("push: %+v, %v", w, err)
				}
				if defs := c.defs(); defs != want {
					t.Errorf("round %d: %d definitions, want %d", round, defs, want)
				}
			}
			v2 := &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.V2(series, 1, c.clock.Load())}
			if _, err := c.push(v2); err != nil {
				t.Fatal(err)
			}
			for _, ls := range []labels.Labels{series[0], series[250], series[499]} {
				if n := c.copies(ls.String()); n != o.replicas {
					t.Errorf("%s is on %d ingesters, want %d", ls, n, o.replicas)
				}
			}
			if n := c.metric("amphora_distributor_received_samples_total", "t1"); n != 2000 {
				t.Errorf("received samples = %g, want 2000", n)
			}
		})
	}
}

func TestEveryValidation(t *testing.T) {
	long := strings.Repeat("x", 40)
	now := func(c *cluster, d time.Duration) []prompb.Sample {
		return []prompb.Sample{{Value: 1, Timestamp: c.clock.Load() + d.Milliseconds()}}
	}
	many := func(name string, n int) string {
		for i := range n {
			name += ",l" + string(rune('a'+i)) + "=v"
		}
		return name
	}
	for _, tc := range []struct {
		name, series string
		id, reason   string
		samples      func(*cluster, time.Duration) []prompb.Sample
		offset       time.Duration
		names        string // what the error must name
	}{
		{"no metric name", ",job=a", "missing-metric-name", "missing_metric_name", nil, 0, `job="a"`},
		{"metric name", "a-b", "metric-name-invalid", "metric_name_invalid", nil, 0, "a-b"},
		{"label name", "up,a-b=c", "label-invalid", "label_invalid", nil, 0, "a-b"},
		{"label name with colon", "up,a:b=c", "label-invalid", "label_invalid", nil, 0, "a:b"},
		{"empty label name", "up,=c", "label-invalid", "label_invalid", nil, 0, "up"},
		{"label value", "up,a=\xff", "label-value-invalid", "label_value_invalid", nil, 0, `"a"`},
		{"long name", "up," + long + "=v", "label-name-too-long", "label_name_too_long", nil, 0, "40 bytes, the limit is 20"},
		{"long value", "up,job=" + long, "label-value-too-long", "label_value_too_long", nil, 0, "40 bytes, the limit is 30"},
		{"long metric name", long, "label-value-too-long", "label_value_too_long", nil, 0, "__name__"},
		{"too many labels", many("up", 5), "max-label-names-per-series", "max_label_names_per_series", nil, 0, "6 labels, the limit is 5"},
		{"too many info labels", many("up_info", 8), "max-label-names-per-info-series", "max_label_names_per_info_series", nil, 0, "9 labels, the limit is 8"},
		{"very many labels", many("zz", 25), "max-label-names-per-series", "max_label_names_per_series", nil, 0, "26 labels"},
		{"duplicate", "up,job=a,job=b", "duplicate-label-names", "duplicate_label_names", nil, 0, `"job"`},
		{"future", "up,when=future", "too-far-in-future", "too_far_in_future", now, 11 * time.Minute, "up{"},
		{"past", "up,when=past", "too-far-in-past", "too_far_in_past", now, -12 * time.Minute, "up{"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
			c.limit(func(v limits.View) limits.View {
				v = limits.MaxLabelNameLength.With(v, 20)
				v = limits.MaxLabelValueLength.With(v, 30)
				v = limits.MaxLabelNamesPerSeries.With(v, 5)
				v = limits.PastGracePeriod.With(v, time.Minute)
				return limits.MaxLabelNamesPerInfoSeries.With(v, 8)
			})
			bad := c.series(tc.series)
			if tc.samples != nil {
				bad.Samples = tc.samples(c, tc.offset)
			}
			for range 2 { // the second time the good series is known
				w, err := c.push(c.v1(bad, c.series("good,job=a"), bad))
				if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "(err-amphora-"+tc.id+")") || !strings.Contains(err.Error(), tc.names) {
					t.Fatalf("got %v, want Invalid with id %s naming %s", err, tc.id, tc.names)
				}
				if len(err.Error()) > 1000 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				if w.Samples != 1 {
					t.Errorf("written = %+v, want the good sample", w)
				}
			}
			if n := c.metric("amphora_discarded_samples_total", tc.reason, "t1"); n != 4 {
				t.Errorf("discarded = %g, want 4", n)
			}
			if _, stored := c.ingesters["ingester-0"].read(); len(stored) != 1 || len(stored[`t1 {__name__="good", job="a"}`]) != 2 {
				t.Errorf("stored = %v, want the good series alone", stored)
			}
		})
	}
}

func TestUTF8NamesAreValidIfTheTenantWantsThem(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	if _, err := c.push(c.v1(c.series("a.b,ü-x=1"))); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("legacy: got %v, want Invalid", err)
	}
	c.limit(func(v limits.View) limits.View { return limits.NameValidationScheme.With(v, "utf8") })
	c.mustPush(c.series("a.b,ü-x=1"))
}

func TestEncodingsOfOneSeriesMeet(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.mustPush(c.series("up,a=1,b=2"), c.series("up,b=2,a=1"), c.series("up,a=1,empty=,b=2"))
	if _, stored := c.ingesters["ingester-0"].read(); len(stored) != 1 {
		t.Errorf("stored = %v, want one series", stored)
	}
}

func TestLimitChangesAreLookedAtAnew(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	s := c.series("up,a=1,b=2")
	c.mustPush(s)
	c.limit(func(v limits.View) limits.View { return limits.MaxLabelNamesPerSeries.With(v, 2) })
	if _, err := c.push(c.v1(s)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("known series under a lower limit: got %v, want Invalid", err)
	}
	c.limit(func(v limits.View) limits.View { return limits.MaxLabelNamesPerSeries.With(v, 30) })
	if defs := c.mustPush(s); defs != 0 {
		t.Errorf("%d definitions after the limit rose again, want 0: the binding still holds", defs)
	}
}

func TestRatesAreSharedAndTakenWhole(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		return limits.IngestionBurstSize.With(limits.IngestionRate.With(v, 10), 4)
	})
	c.share.Store(5) // 2 a second here
	three := c.v1(c.series("a"), c.series("b"), c.series("c"))
	if _, err := c.push(three); err != nil {
		t.Fatalf("within the burst: %v", err)
	}
	_, err := c.push(three)
	if errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "(err-amphora-tenant-max-ingestion-rate)") {
		t.Fatalf("over the burst: got %v", err)
	}
	if n := c.metric("amphora_discarded_samples_total", "rate_limited"); n != 3 {
		t.Errorf("discarded = %g, want 3", n)
	}
	c.advance(900 * time.Millisecond)
	if _, err := c.push(three); errs.KindOf(err) != errs.RateLimited {
		t.Errorf("after 0.9 s: got %v, want RateLimited", err)
	}
	c.advance(200 * time.Millisecond)
	if _, err := c.push(three); err != nil {
		t.Errorf("after 1.1 s: %v", err)
	}
}

func TestRequestRate(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View { return limits.RequestRate.With(v, 2) })
	for range 2 {
		c.mustPush(c.series("a"))
	}
	_, err := c.push(c.v1(c.series("a")))
	if errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "tenant-max-request-rate") {
		t.Errorf("got %v, want RateLimited", err)
	}
	if n := c.metric("amphora_discarded_requests_total", "rate_limited", "t1"); n != 1 {
		t.Errorf("discarded requests = %g, want 1", n)
	}
}

func TestInstanceLimitsKeepPushesOut(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1, maxInflight: 1})
	hold := make(chan struct{})
	c.ingesters["ingester-0"].set(func(g *ingester) { g.hold = hold })
	first := make(chan error, 1)
	go func() {
		_, err := c.push(c.v1(c.series("a")))
		first <- err
	}()
	c.await(func() bool { return c.inflight.Load() == 1 })
	_, err := c.push(c.v1(c.series("b")))
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "distributor-max-inflight-push-requests") {
		t.Errorf("got %v, want Unavailable", err)
	}
	close(hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
	c.mustPush(c.series("b"))
	if n := c.metric("amphora_distributor_instance_rejected_requests_total", "distributor_max_inflight_push_requests"); n != 1 {
		t.Errorf("rejected = %g, want 1", n)
	}
}

func TestBucketsOfAHistogramShareAToken(t *testing.T) {
	a := labels.FromStrings("__name__", "h_bucket", "job", "x", "le", "1")
	b := labels.FromStrings("__name__", "h_bucket", "job", "x", "le", "+Inf")
	other := labels.FromStrings("__name__", "h_bucket", "job", "y", "le", "1")
	if ShardToken("t", a) != ShardToken("t", b) || ShardToken("t", a) == ShardToken("t", other) || ShardToken("t", a) == ShardToken("u", a) {
		t.Error("a token depends on the tenant and all labels but le")
	}
	if got, want := ShardToken("t", a), uint32(4134228631); got != want {
		t.Errorf("token = %d, want %d as in every release", got, want)
	}
}
