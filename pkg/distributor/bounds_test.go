package distributor

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/admission"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

func TestNothingOfAMalformedRequestIsStored(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	bad := c.series("h")
	bad.Histograms = []prompb.Histogram{{ResetHint: prompb.Histogram_ResetHint(histogram.GaugeType) + 1}}
	req := c.v1(c.series("good"), bad)
	_, err := c.push(req)
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "malformed remote write request: histogram") {
		t.Errorf("got %v, want Invalid", err)
	}
	c.ingesters["ingester-0"].set(func(g *ingester) {
		if g.frames != 0 {
			t.Errorf("%d frames were sent", g.frames)
		}
	})
	if n := c.budget.used.Load(); n != 0 {
		t.Errorf("%d series were remembered", n)
	}
}

func TestASmallBodyCannotNameMuchText(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	symbols := writev2.NewSymbolTable()
	name, label, long := symbols.Symbolize("__name__"), symbols.Symbolize("l"), symbols.Symbolize(strings.Repeat("x", 2048))
	req := writev2.Request{}
	for i := range 40_000 {
		metric := symbols.Symbolize("m" + string(rune('a'+i%26)) + strings.Repeat("b", i%200))
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: []uint32{name, metric, label, long},
			Samples: []writev2.Sample{{Value: 1, Timestamp: c.clock.Load()}}})
	}
	req.Symbols = symbols.Symbols()
	body := remotewritetest.MustMarshal(&req)
	_, err := c.push(&remotewrite.Request{Version: remotewrite.V2, Body: body})
	if errs.KindOf(err) != errs.BodyTooLarge {
		t.Errorf("%d bytes that name %d bytes of labels: got %v, want BodyTooLarge", len(body), 40_000*2048, err)
	}
}

func TestKnownSeriesCostNoAllocationEach(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3, zones: true})
	instant(c)
	for v, body := range map[remotewrite.Version][]byte{
		remotewrite.V1: remotewritetest.V1(remotewritetest.Series(2000), 1, c.clock.Load()),
		remotewrite.V2: remotewritetest.V2(remotewritetest.Series(2000), 1, c.clock.Load()),
	} {
		req := &remotewrite.Request{Version: v, Body: body}
		push := func() {
			if _, err := c.push(req); err != nil {
				t.Fatal(err)
			}
		}
		push()
		if n := testing.AllocsPerRun(20, push); n > 200 {
			t.Errorf("v%d: %g allocations for a push of 2,000 samples", v, n)
		}
	}
}

func TestAStoppedDistributorTakesNothing(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	ctx := context.Background()
	if err := services.StartAndAwaitRunning(ctx, c.Distributor); err != nil {
		t.Fatal(err)
	}
	c.mustPush(c.series("up"))
	hold := make(chan struct{})
	c.ingesters["ingester-0"].set(func(g *ingester) { g.hold = hold })
	slow := make(chan error, 1)
	go func() {
		_, err := c.push(c.v1(c.series("up")))
		slow <- err
	}()
	c.await(func() bool { return c.inflight.Load() == 1 })
	c.StopAsync()
	c.await(func() bool {
		_, err := c.push(&remotewrite.Request{Version: remotewrite.V1})
		return errs.KindOf(err) == errs.Unavailable
	})
	if c.State() == services.Terminated {
		t.Error("stopped before the push under way was answered")
	}
	close(hold)
	if err := errors.Join(<-slow, c.AwaitTerminated(ctx)); err != nil {
		t.Error(err)
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	for _, edit := range []func(*Config, *Deps){
		func(cfg *Config, _ *Deps) { cfg.RemoteTimeout = 0 },
		func(cfg *Config, _ *Deps) { cfg.RemoteTimeout = 1 << 50 },
		func(_ *Config, d *Deps) { d.Ring = nil },
		func(cfg *Config, _ *Deps) {
			cfg.Reactive = admission.LimiterConfig{Enabled: true, MinInflight: 0, MaxInflight: 10, Initially: 5}
		},
		func(cfg *Config, _ *Deps) {
			cfg.Reactive = admission.LimiterConfig{Enabled: true, MinInflight: 2, MaxInflight: 10, Initially: 20}
		},
	} {
		cfg, deps := c.cfg, c.deps
		edit(&cfg, &deps)
		if _, err := New(cfg, deps); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}
