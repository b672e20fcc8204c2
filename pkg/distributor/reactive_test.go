package distributor

import (
	"testing"
	"testing/synctest"

	"github.com/amphora-metrics/amphora/pkg/admission"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestTheReactiveLimiterRefusesPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who waits for its turn does so for a second
		c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
		c.reactive = admission.NewLimiter(admission.LimiterConfig{Enabled: true, MinInflight: 1, MaxInflight: 1, Initially: 1}, errReactive)
		hold := make(chan struct{})
		c.ingesters["ingester-0"].set(func(g *ingester) { g.hold = hold })
		answers := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.push(c.v1(c.series("a")))
				answers <- err
			}()
		}
		c.await(func() bool { _, n, w := c.reactive.State(); return n == 1 && w == 1 })
		if _, err := c.push(c.v1(c.series("b"))); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("got %v, want Unavailable", err)
		}
		close(hold)
		for range 2 {
			if err := <-answers; err != nil && errs.KindOf(err) != errs.Unavailable {
				t.Error(err)
			}
		}
		if n := c.metric("amphora_distributor_instance_rejected_requests_total", "distributor_reactive_limiter"); n < 1 {
			t.Errorf("rejected = %g, want at least 1", n)
		}
		if n := c.metric("amphora_distributor_reactive_limiter_inflight_requests"); n != 0 {
			t.Errorf("%g pushes in flight after all were answered", n)
		}
		c.ingesters["ingester-0"].set(func(g *ingester) { g.hold = nil })
		c.mustPush(c.series("b"))
	})
}
