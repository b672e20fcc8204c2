package ingester

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestABreakerRefusesPushesAfterManyFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := func() (*site, *disk) {
			d := &disk{}
			d.free.Store(500 << 20)
			return newSite(t, siteOptions{deps: func(deps *Deps) { deps.DiskSpace = d.space }, change: func(c *Config) {
				c.Disk = DiskConfig{MinFreeBytes: 10 << 20}
				c.Gates.PushBreaker.Enabled, c.Gates.PushBreaker.Executions, c.Gates.PushBreaker.Cooldown = true, 10, 100*time.Millisecond
			}}), d
		}()
		w := newSender(s.Ingester)
		w.mustPush(t, "t1", point{metric("a"), base, 1})
		d.set(s, 5)
		push := func(at int64) frame.Result {
			return w.push(t.Context(), w.frame("t1", point{metric("a"), base + at, 1}))
		}
		for k := range int64(9) {
			wantRefused(t, push(k+1), "ingester-disk-full")
		}
		res := push(10)
		wantRefused(t, res, "ingester-circuit-breaker-open")
		if !strings.Contains(res.Message, "circuit breaker open on push request type with remaining delay") {
			t.Errorf("message %q", res.Message)
		}
		equal(t, s.dump(t, "t1"), map[string]string{`{__name__="a"}`: "0:1"}) // queries have their own
		for metric, labels := range map[string][]string{
			"amphora_ingester_circuit_breaker_results_total":     {"request_type", "push", "result", "circuit_breaker_open"},
			"amphora_ingester_circuit_breaker_transitions_total": {"request_type", "push", "state", "open"},
			"amphora_ingester_circuit_breaker_current_state":     {"request_type", "push", "state", "open"},
		} {
			if got := s.counter(t, metric, labels...); got != 1 {
				t.Errorf("%s %v is %v, want 1", metric, labels, got)
			}
		}
		d.set(s, 500)
		poll(t, "the breaker to close", func() bool { return push(11).Outcome == frame.Stored })
	})
}

func TestABreakerOfQueriesCountsThoseThatFail(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) {
		c.Gates.ReadBreaker.Enabled, c.Gates.ReadBreaker.Executions = true, 10
		c.InstanceLimits.MaxInflightReadRequests = 1
	}})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base, 1})
	ctx := tenant.Inject(context.Background(), "t1")
	held, err := s.beginRead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.Metadata(ctx, &ingesterpb.MetadataRequest{}); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("a second query: %v", err)
		}
	}
	held.end()
	if err := s.Query(everything(), &queryStream{ctx: ctx}); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "open on read request type") {
		t.Errorf("after ten failures: %v", err)
	}
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base + 1, 1})
}

func TestReactiveLimitersLetInAsManyAsTheyMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who waits for its turn does so for a second
		s := newSite(t, siteOptions{change: func(c *Config) {
			c.Gates.ReadLimiter.Enabled, c.Gates.ReadLimiter.MinInflight, c.Gates.ReadLimiter.Initially = true, 1, 1
			c.Gates.PushLimiter.Enabled = true
		}})
		w := newSender(s.Ingester)
		for k := range int64(50) {
			w.mustPush(t, "t1", point{metric("a"), base + k, 1})
		}
		ctx := tenant.Inject(context.Background(), "t1")
		held, err := s.beginRead(ctx)
		if err != nil {
			t.Fatal(err)
		}
		waits := make(chan error, 1)
		go func() {
			r, err := s.beginRead(ctx)
			if err == nil {
				r.end()
			}
			waits <- err
		}()
		poll(t, "a query to wait", func() bool {
			return s.counter(t, "amphora_ingester_reactive_limiter_blocked_requests", "request_type", "read") == 1
		})
		if _, err := s.beginRead(ctx); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "ingester-read-reactive-limiter") {
			t.Errorf("a third query: %v", err)
		}
		held.end()
		if err := <-waits; err != nil {
			t.Errorf("the query that waited: %v", err)
		}
		if got := s.counter(t, "amphora_ingester_reactive_limiter_inflight_requests"); got != 0 {
			t.Errorf("%v requests in flight", got)
		}
		if got := s.counter(t, "amphora_ingester_reactive_limiter_inflight_limit", "request_type", "push"); got != 20 {
			t.Errorf("limit of pushes %v, want 20", got)
		}
	})
}
