package distributor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// wantCosts compares a family of the page of costs, as "values... count", sorted.
func (c *cluster) wantCosts(family string, want ...string) {
	c.t.Helper()
	families, err := c.costs.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.Metric {
			var line []string
			for _, l := range m.Label {
				if l.GetName() != "tenant" && l.GetName() != "tracker" {
					line = append(line, l.GetName()+"="+l.GetValue())
				}
			}
			got = append(got, fmt.Sprintf("%s %g", strings.Join(line, ","), m.GetCounter().GetValue()))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.t.Errorf("%s = %q, want %q", family, got, want)
	}
}

const (
	receivedCosts  = "amphora_distributor_received_attributed_samples_total"
	discardedCosts = "amphora_discarded_attributed_samples_total"
)

func costsCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		v = limits.MaxCostAttributionCardinality.With(v, 3)
		return limits.CostAttributionLabels.With(v, []string{"team"})
	})
	return c
}

func TestSamplesAreAttributedToValuesOfLabels(t *testing.T) {
	c := costsCluster(t)
	many := c.series("many,team=blue")
	for k := range int64(4) {
		many.Samples = append(many.Samples, prompb.Sample{Value: 2, Timestamp: c.clock.Load() + 1000*(k+1)})
	}
	c.mustPush(many, c.series("up,team=red"), c.series("up"), c.series("down,team=red"))
	c.wantCosts(receivedCosts, "team=__missing__ 1", "team=blue 5", "team=red 2")
	c.advance(time.Minute)
	c.mustPush(c.series("up,team=red"), c.series("many,team=blue"))
	c.wantCosts(receivedCosts, "team=__missing__ 1", "team=blue 6", "team=red 3")

	future := c.series("up,team=red")
	future.Samples[0].Timestamp += time.Hour.Milliseconds()
	if _, err := c.push(c.v1(c.series("a-b,team=blue"), future, c.series("up,team=blue"))); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("got %v, want Invalid", err)
	}
	c.wantCosts(discardedCosts, "reason=metric_name_invalid,team=blue 1", "reason=too_far_in_future,team=red 1")
	c.wantCosts(receivedCosts, "team=__missing__ 1", "team=blue 7", "team=red 3")

	c.limit(func(v limits.View) limits.View {
		return limits.IngestionRate.With(limits.IngestionBurstSize.With(v, 1), 1)
	})
	c.advance(time.Minute)
	if _, err := c.push(c.v1(c.series("up,team=red"), c.series("new,team=blue"))); errs.KindOf(err) != errs.RateLimited {
		t.Fatalf("got %v, want RateLimited", err)
	}
	c.wantCosts(discardedCosts, "reason=metric_name_invalid,team=blue 1", "reason=rate_limited,team=blue 1", "reason=rate_limited,team=red 1", "reason=too_far_in_future,team=red 1")
}

func TestTooManyValuesAreAttributedToOne(t *testing.T) {
	c := costsCluster(t)
	c.mustPush(c.series("up,team=a"), c.series("up,team=b"), c.series("up,team=c"))
	c.wantCosts(receivedCosts, "team=a 1", "team=b 1", "team=c 1")
	c.mustPush(c.series("x,team=d"), c.series("y,team=a"))
	c.mustPush(c.series("z,team=a"), c.series("z,team=e"))
	c.wantCosts(receivedCosts, "team=__overflow__ 3")
	// The cooldown is 0: the next look tells them apart again.
	c.cleanCosts(c.deps.Now())
	c.mustPush(c.series("v,team=a"), c.series("v,team=e"))
	c.wantCosts(receivedCosts, "team=a 1", "team=e 1")
}

func TestIdleValuesAreForgottenAndComeBack(t *testing.T) {
	c := costsCluster(t)
	c.mustPush(c.series("up,team=a"), c.series("up,team=b"))
	c.advance(9 * time.Minute)
	c.mustPush(c.series("up,team=a"))
	c.cleanCosts(c.deps.Now())
	c.wantCosts(receivedCosts, "team=a 2", "team=b 1")
	c.advance(2 * time.Minute)
	c.cleanCosts(c.deps.Now())
	c.wantCosts(receivedCosts, "team=a 2")
	c.mustPush(c.series("up,team=a"), c.series("up,team=b"))
	c.wantCosts(receivedCosts, "team=a 3", "team=b 1")
}

func TestChangedLabelsCountAnew(t *testing.T) {
	c := costsCluster(t)
	c.mustPush(c.series("up,team=a,env=x"))
	c.limit(func(v limits.View) limits.View { return limits.CostAttributionLabels.With(v, []string{"env", "team"}) })
	c.advance(time.Minute)
	c.mustPush(c.series("up,team=a,env=x"))
	c.wantCosts(receivedCosts, "env=x,team=a 1")
	c.limit(func(v limits.View) limits.View { return limits.CostAttributionLabels.With(v, nil) })
	c.advance(time.Minute)
	c.mustPush(c.series("up,team=a,env=x"))
	c.cleanCosts(c.deps.Now())
	c.wantCosts(receivedCosts)
}
