package ingester

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/admission"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// GateConfig says how requests are turned away by how those before them fared.
type GateConfig struct {
	PushBreaker, ReadBreaker admission.BreakerConfig
	PushLimiter, ReadLimiter admission.LimiterConfig
}

// Declare names each setting once.
func (c *GateConfig) Declare(s *config.Set) {
	c.PushBreaker.RequestTimeout, c.ReadBreaker.RequestTimeout = 2*time.Second, 30*time.Second
	s.Mount("push_circuit_breaker", &c.PushBreaker)
	s.Mount("read_circuit_breaker", &c.ReadBreaker)
	s.Mount("push_reactive_limiter", &c.PushLimiter)
	s.Mount("read_reactive_limiter", &c.ReadLimiter)
}

var (
	errPushLimiter = errs.WithID(errs.Unavailable, "ingester-push-reactive-limiter",
		"Try again later, add ingesters, or raise -ingester.push-reactive-limiter.max-inflight-limit.",
		"the ingester answers pushes more slowly than usual, or is at its limit of pushes at once, and takes fewer")
	errReadLimiter = errs.WithID(errs.Unavailable, "ingester-read-reactive-limiter",
		"Try again later, add ingesters, or raise -ingester.read-reactive-limiter.max-inflight-limit.",
		"the ingester answers queries or pushes more slowly than usual, or is at its limit of queries at once, and takes fewer")
)

// The kinds of requests that have a gate.
const (
	pushRequests = "push"
	readRequests = "read"
)

// gate turns away requests of one kind: all for a while when many have failed, and some when they
// are answered slowly.
type gate struct {
	kind    string
	breaker *admission.Breaker // nil: off
	limiter *admission.Limiter // nil: off
	metrics *gateMetrics
	refused prometheus.Counter // by the limiter
}

// gateMetrics are those of all gates.
type gateMetrics struct {
	results, transitions, timeouts *prometheus.CounterVec
	state                          *prometheus.GaugeVec
}

// initGates makes the gates of pushes and queries. Queries give way to pushes.
func (g *guards) initGates(c GateConfig, reg prometheus.Registerer, rejected *prometheus.CounterVec) {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_ingester_circuit_breaker_" + name, Help: help}, append([]string{"request_type"}, labels...))
	}
	m := &gateMetrics{
		results:     counter("results_total", "Requests by how they ended: success, error, or refused because the breaker is open.", "result"),
		transitions: counter("transitions_total", "Changes of the breaker's state.", "state"),
		timeouts:    counter("request_timeouts_total", "Requests that took longer than they may and count as failed."),
		state: f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_ingester_circuit_breaker_current_state",
			Help: "1 for the state the breaker is in. Open, it refuses requests because many failed."}, []string{"request_type", "state"}),
	}
	g.pushGate = m.gate(pushRequests, c.PushBreaker)
	g.readGate = m.gate(readRequests, c.ReadBreaker)
	g.pushGate.refused, g.readGate.refused = rejected.WithLabelValues(rejectedPushLimiter), rejected.WithLabelValues(rejectedReadLimiter)
	if c.PushLimiter.Enabled {
		g.pushGate.limiter = admission.NewLimiter(c.PushLimiter, errPushLimiter)
	}
	if c.ReadLimiter.Enabled {
		g.readGate.limiter = admission.NewLimiter(c.ReadLimiter, errReadLimiter, g.pushGate.limiter)
	}
	for _, g := range []*gate{&g.pushGate, &g.readGate} {
		gauge := func(name, help string, value func(limit float64, inflight, waiting int) float64) {
			f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_ingester_reactive_limiter_" + name, Help: help, ConstLabels: prometheus.Labels{"request_type": g.kind}},
				func() float64 { return value(g.limiter.State()) })
		}
		gauge("inflight_limit", "Requests at once that the reactive limiter allows. A fall means that they are answered more slowly. 0: it is off.",
			func(limit float64, _, _ int) float64 { return limit })
		gauge("inflight_requests", "Requests that the reactive limiter let in.", func(_ float64, inflight, _ int) float64 { return float64(inflight) })
		gauge("blocked_requests", "Requests that wait for the reactive limiter.", func(_ float64, _, waiting int) float64 { return float64(waiting) })
	}
}

func (m *gateMetrics) gate(kind string, c admission.BreakerConfig) gate {
	g := gate{kind: kind, metrics: m}
	if !c.Enabled {
		return g
	}
	enter := func(now admission.BreakerState) {
		for _, s := range []admission.BreakerState{admission.Closed, admission.Open, admission.HalfOpen} {
			in := 0.0
			if s == now {
				in = 1
			}
			m.state.WithLabelValues(kind, s.String()).Set(in)
		}
	}
	enter(admission.Closed)
	g.breaker = admission.NewBreaker(c, func(now admission.BreakerState) {
		m.transitions.WithLabelValues(kind, now.String()).Inc()
		enter(now)
	})
	return g
}

// pass is a request that went through a gate.
type pass struct {
	permit admission.Permit
	began  time.Time
}

// enter lets a request through; leave must follow. Errors: Unavailable; the cause of ctx.
func (g *gate) enter(ctx context.Context) (p pass, err error) {
	if g.breaker != nil {
		permit, left, ok := g.breaker.Allow()
		if !ok {
			g.metrics.results.WithLabelValues(g.kind, "circuit_breaker_open").Inc()
			return p, errs.WithID(errs.Unavailable, "ingester-circuit-breaker-open", "",
				"circuit breaker open on %s request type with remaining delay %s", g.kind, left.Round(time.Millisecond))
		}
		p.permit = permit
	}
	if g.limiter != nil {
		if p.began, err = g.limiter.Enter(ctx); err == nil {
			return p, nil
		}
		if errs.KindOf(err) == errs.Unavailable {
			g.refused.Inc()
		}
		if g.breaker != nil {
			g.breaker.Done(p.permit, false)
		}
	}
	return p, err
}

// leave notes how a request ended: whether it failed, and whether it did enough to tell how quick
// things are.
func (g *gate) leave(p pass, failed, telling bool) {
	if g.limiter != nil {
		g.limiter.Leave(p.began, telling)
	}
	if g.breaker == nil {
		return
	}
	late := g.breaker.Done(p.permit, failed)
	if late {
		g.metrics.timeouts.WithLabelValues(g.kind).Inc()
	}
	result := "success"
	if failed || late {
		result = "error"
	}
	g.metrics.results.WithLabelValues(g.kind, result).Inc()
}

// ownFault says whether a request that ended so failed for a reason that lies here.
func ownFault(k errs.Kind) bool {
	return k == errs.Internal || k == errs.Unavailable || k == errs.Timeout
}

// leavePush is leave for a push.
func (g *gate) leavePush(p pass, res frame.Result) {
	g.leave(p, res.Outcome == frame.Failed && ownFault(res.Kind), res.Outcome == frame.Stored)
}
