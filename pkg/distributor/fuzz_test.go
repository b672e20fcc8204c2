package distributor

import (
	"testing"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// FuzzPush pushes hostile bodies, twice each, so that both new and known series are met, for a tenant
// whose series stay as they are, one whose series name their tenant and one whose series change.
func FuzzPush(f *testing.F) {
	c := newCluster(f, clusterOptions{replicas: 3, instances: 5, cacheBytes: 1000 * entryBytes}).deduplicate()
	c.rules(someRules, "pod")
	c.limit(func(v limits.View) limits.View {
		v = limits.MaxGlobalExemplarsPerUser.With(v, 10)
		return limits.MaxNativeHistogramBuckets.With(v, 20)
	})
	c.views = map[tenant.ID]limits.View{"t2": rules(*c.view.Load(), []string{"a=b:t3", "a", "__name__"}, []string{"*"}, true)}
	c.views["t4"] = limits.LabelValueLengthOverLimitStrategy.With(limits.MaxLabelValueLength.With(limits.EnableTypeAndUnitLabels.With(*c.view.Load(), true), 45), "truncate")
	for _, g := range c.ingesters {
		g.keep = false
	}
	h := c.series("h")
	h.Histograms = []prompb.Histogram{prompb.FromIntHistogram(c.clock.Load(), exponential(2, 40))}
	h.Exemplars = []prompb.Exemplar{{Labels: []prompb.Label{{Name: "a", Value: "b"}}, Timestamp: c.clock.Load()}}
	f.Add(uint8(1), c.v1(h, c.series("up,a=b")).Body)
	f.Add(uint8(1), c.v1(c.from("eu/a", "up"), c.from("eu/b", "up"), c.from("us/b", "go_x")).Body)
	f.Add(uint8(1), remotewritetest.V1(remotewritetest.Series(2), 1, c.clock.Load()))
	f.Add(uint8(2), remotewritetest.V2(remotewritetest.Series(2), 1, c.clock.Load()))
	f.Fuzz(func(t *testing.T, version uint8, body []byte) {
		for range 2 {
			for _, id := range []tenant.ID{"t1", "t2", "t4"} {
				_, err := c.Push(t.Context(), id, &remotewrite.Request{Version: remotewrite.Version(version), Body: body, SkipLabelNames: id == "t4"})
				switch k := errs.KindOf(err); {
				case err == nil, k == errs.Invalid, k == errs.Unsupported, k == errs.BodyTooLarge, k == errs.Accepted:
				default:
					t.Fatalf("%s: got %v %v", id, k, err)
				}
			}
		}
	})
}
