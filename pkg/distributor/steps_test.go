package distributor

import (
	"fmt"
	"slices"
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

func TestABurstFactorReplacesTheBurstSize(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		return limits.IngestionBurstFactor.With(limits.IngestionBurstSize.With(limits.IngestionRate.With(v, 2), 1), 1.5)
	})
	three := c.v1(c.series("a"), c.series("b"), c.series("c"))
	if _, err := c.push(three); err != nil {
		t.Fatalf("3 samples at a rate of 2 and a factor of 1.5: %v", err)
	}
	c.advance(10 * time.Second)
	_, err := c.push(c.v1(c.series("a"), c.series("b"), c.series("c"), c.series("d")))
	if errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "bursts of 3") {
		t.Errorf("4 samples: got %v, want RateLimited naming the burst of 3", err)
	}
}

func TestAProcessTakesNoMoreThanItsIngestionRate(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	limit := 0.0
	c.deps.InstanceLimits = func(l InstanceLimits) InstanceLimits {
		l.MaxIngestionRate = limit
		return l
	}
	two := c.v1(c.series("a"), c.series("b"))
	rate := 0.0
	for range 30 { // 2 samples a second
		if _, err := c.push(two); err != nil {
			t.Fatal(err)
		}
		rate = c.metric("amphora_distributor_ingestion_rate_samples_per_second")
		c.advance(time.Second)
	}
	if rate < 1.9 || rate > 2.1 {
		t.Errorf("rate = %g, want about 2", rate)
	}
	limit = 1
	_, err := c.push(two)
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "(err-amphora-distributor-max-ingestion-rate)") {
		t.Errorf("got %v, want Unavailable", err)
	}
	if n := c.metric("amphora_distributor_instance_rejected_requests_total", "distributor_max_ingestion_rate"); n != 1 {
		t.Errorf("rejected = %g, want 1", n)
	}
	if n := c.metric("amphora_distributor_inflight_push_requests"); n != 0 {
		t.Errorf("%g pushes in flight after a rejection", n)
	}
	c.advance(10 * time.Second)
	if _, err := c.push(two); err != nil {
		t.Errorf("after ten quiet seconds: %v", err)
	}
}

func TestMetadataWithoutANameIsIgnoredIfItNeedNotHaveOne(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	body := remotewritetest.MustMarshal(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Help: "of what?"}, {MetricFamilyName: "up", Help: "h"}}})
	req := &remotewrite.Request{Version: remotewrite.V1, Body: body}
	if _, err := c.push(req); errs.KindOf(err) != errs.Invalid {
		t.Errorf("got %v, want Invalid", err)
	}
	c.limit(func(v limits.View) limits.View { return limits.EnforceMetadataMetricName.With(v, false) })
	if _, err := c.push(req); err != nil {
		t.Errorf("not enforced: %v", err)
	}
	if n := c.metric("amphora_discarded_metadata_total", "missing_metric_name"); n != 1 {
		t.Errorf("discarded = %g, want the enforced one alone", n)
	}
}

func TestExemplarsBeyondTheLimitOfASeriesAreDropped(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		return limits.MaxExemplarsPerSeriesPerRequest.With(limits.MaxGlobalExemplarsPerUser.With(v, 100), 2)
	})
	many := func(name string) prompb.TimeSeries {
		s := c.series(name)
		for i := range 3 {
			s.Exemplars = append(s.Exemplars, prompb.Exemplar{Timestamp: c.clock.Load(), Value: 1,
				Labels: prompb.FromLabels(labels.FromStrings("id", fmt.Sprint(name, i)), nil)})
		}
		return s
	}
	if w, err := c.push(c.v1(many("a"), many("b"))); err != nil || w.Exemplars != 4 {
		t.Errorf("got %+v, %v, want 2 exemplars of each series and no error", w, err)
	}
	if n := c.metric("amphora_discarded_exemplars_total", "too_many_exemplars_per_series_per_request"); n != 2 {
		t.Errorf("discarded = %g, want 2", n)
	}
	c.ingesters["ingester-0"].set(func(g *ingester) {
		for k, id := range []string{"a0", "a1", "b0", "b1"} {
			if got := g.exem[k].Labels.Get("id"); got != id {
				t.Errorf("exemplar %d is %s, want %s: the first are kept", k, got, id)
			}
		}
	})
}

func TestDifferentSamplesOfOneTimeAreRefused(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	now := c.clock.Load()
	at := func(values ...float64) prompb.TimeSeries {
		s := c.series(fmt.Sprintf("up,n=%d", len(values)))
		s.Samples = nil
		for k, v := range values {
			s.Samples = append(s.Samples, prompb.Sample{Value: v, Timestamp: now + int64(k/2)})
		}
		return s
	}
	hist := func(name string, buckets ...int) prompb.TimeSeries {
		s := c.series(name)
		s.Samples = nil
		for _, n := range buckets {
			s.Histograms = append(s.Histograms, prompb.FromIntHistogram(now, exponential(0, n)))
		}
		return s
	}
	late := hist("late", 1, 2)
	late.Histograms = append(late.Histograms, prompb.FromIntHistogram(now-5, exponential(0, 1)))
	for range 2 { // the second time the series are known
		w, err := c.push(c.v1(at(1), at(1, 2), at(1, 1, 3, 3), at(1, 2, 3, 4, 5), hist("same", 2, 2), late))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "(err-amphora-sample-duplicate-timestamp)") || !strings.Contains(err.Error(), `up{n="2"}`) {
			t.Fatalf("got %v, want Invalid naming the first series", err)
		}
		if w.Samples != 1+1+4+3 || w.Histograms != 2+2 {
			t.Errorf("written = %+v", w)
		}
	}
	if n := c.metric("amphora_discarded_samples_total", "sample_duplicate_timestamp", "t1"); n != 2*4 {
		t.Errorf("discarded = %g, want 8", n)
	}
	_, stored := c.ingesters["ingester-0"].read()
	if got := stored[`t1 {__name__="up", n="5"}`]; len(got) != 6 || got[0] != fmt.Sprintf("%d:1", now) || got[1] != fmt.Sprintf("%d:3", now+1) {
		t.Errorf("stored = %v, want the first sample of each time", got)
	}
}

func TestRefusalsAreCountedByGroup(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View { return limits.SeparateMetricsGroupLabel.With(v, "team") })
	refused := func(team string) {
		t.Helper()
		if _, err := c.push(c.v1(c.series("up,team="+team), c.series("a-b"))); errs.KindOf(err) != errs.Invalid {
			t.Fatalf("got %v, want Invalid", err)
		}
	}
	refused("blue")
	for range 2 {
		refused("red")
	}
	if blue, red := c.metric("amphora_discarded_samples_total", "metric_name_invalid", "blue"), c.metric("amphora_discarded_samples_total", "red"); blue != 1 || red != 2 {
		t.Errorf("discarded of blue = %g and of red = %g, want 1 and 2", blue, red)
	}
	c.limit(func(v limits.View) limits.View {
		return limits.IngestionRate.With(limits.IngestionBurstSize.With(v, 1), 1)
	})
	if _, err := c.push(c.v1(c.series("up,team=red"), c.series("up"))); errs.KindOf(err) != errs.RateLimited {
		t.Fatalf("got %v, want RateLimited", err)
	}
	if n := c.metric("amphora_discarded_samples_total", "rate_limited", "red"); n != 2 {
		t.Errorf("rate limited of red = %g, want 2", n)
	}
	c.advance(groupIdle)
	c.tenants.sweep(c.tick(c.deps.Now()))
	if n := c.metric("amphora_discarded_samples_total", "blue"); n != 0 {
		t.Error("an idle group is still in the metrics")
	}
	c.limit(func(v limits.View) limits.View { return limits.IngestionRate.With(v, 0) })
	for k := range maxGroups + 5 {
		refused(fmt.Sprint(k))
	}
	if n := c.metric("amphora_discarded_samples_total", otherGroup); n != 5 {
		t.Errorf("beyond the bound = %g, want 5", n)
	}
}

func TestAnArtificialDelayIsSpreadAroundTheTenantsLimit(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	if w, err := c.push(c.v1(c.series("a"))); err != nil || w.Delay != 0 {
		t.Errorf("without the limit: %+v, %v", w, err)
	}
	c.limit(func(v limits.View) limits.View { return limits.IngestionArtificialDelay.With(v, time.Second) })
	for range 100 {
		w, err := c.push(c.v1(c.series("a")))
		if err != nil || w.Delay < 900*time.Millisecond || w.Delay > 1100*time.Millisecond {
			t.Fatalf("got %+v, %v, want a delay of 1s give or take a tenth", w, err)
		}
	}
	if w, err := c.push(c.v1(c.series("a-b"))); errs.KindOf(err) != errs.Invalid || w.Delay != 0 {
		t.Errorf("refused: %+v, %v, want no delay", w, err)
	}
}

func TestEveryReasonOfTheFieldExists(t *testing.T) {
	var got []string
	for c := valid + 1; c < numChecks; c++ {
		got = append(got, c.row().reason)
	}
	for c := exemplarValid + 1; c < numExemplarChecks; c++ {
		got = append(got, c.reason())
	}
	for _, want := range []string{
		"missing_metric_name", "metric_name_invalid", "max_label_names_per_series", "max_label_names_per_info_series", "label_invalid",
		"label_value_invalid", "label_name_too_long", "label_value_too_long", "max_native_histogram_buckets", "invalid_native_histogram_schema",
		"duplicate_label_names", "too_far_in_future", "too_far_in_past", "sample_duplicate_timestamp", "rate_limited",
		"exemplar_labels_missing", "exemplar_labels_too_long", "exemplar_timestamp_invalid", "exemplar_labels_blank", "exemplar_too_old",
		"exemplar_too_far_in_future", "too_many_exemplars_per_series_per_request",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("reason %s is missing; dashboards key on it", want)
		}
	}
}
