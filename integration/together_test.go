package integration

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// togetherFile limits one tenant by samples and another by requests; the third has no limit.
const togetherFile = `
overrides:
  samples: {ingestion_rate: 30, ingestion_burst_size: 200}
  requests: {request_rate: 30, request_burst_size: 200, ingestion_rate: 0}
  loud: {ingestion_rate: 0, max_global_series_per_user: 0}
`

// patientPushes lets no push fail for being slow, which is what limiters are to see.
const patientPushes = "-distributor.remote-timeout=60s"

// TestDistributorsShareRatesAndEachHoldsBack has three distributors before one store.
func TestDistributorsShareRatesAndEachHoldsBack(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 8*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(togetherFile), 0o600))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1,
		Flags: []string{"-runtime-config.file=" + file, patientPushes, "-distributor.ring.heartbeat-period=1s", "-distributor.ring.heartbeat-timeout=6s"},
		Nodes: []harness.Spec{
			{Name: "store", Target: "ingester,querier"},
			{Name: "distributor-0", Target: "distributor", Flags: []string{"-api.skip-label-count-validation-header-enabled=true"}},
			{Name: "distributor-1", Target: "distributor", Flags: []string{"-distributor.reactive-limiter.enabled=true"}},
			{Name: "distributor-2", Target: "distributor"},
		}})
	all := c.Of("distributor")
	settled(ctx, t, c.Nodes(), "store")

	t.Run("checks left out", func(t *testing.T) { countLeftOut(ctx, t, all[0].URL(""), all[1].URL("")) })
	t.Run("rates of three", func(t *testing.T) { shares(ctx, t, 10, all) })
	must(t, all[2].Kill())
	t.Run("rates of two", func(t *testing.T) { shares(ctx, t, 15, all[:2]) })
	t.Run("a slow store", func(t *testing.T) {
		holdsBack(ctx, t, all[1], refusals{"distributor-reactive-limiter", "amphora_distributor_reactive_limiter_inflight_limit",
			"amphora_distributor_instance_rejected_requests_total", "distributor_reactive_limiter"})
	})
}

// TestAnIngesterHoldsBackWhileItIsSlow, by a limiter of its own.
func TestAnIngesterHoldsBackWhileItIsSlow(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 6*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(togetherFile), 0o600))
	n := everything(ctx, t, "-runtime-config.file="+file, patientPushes, "-ingester.push-reactive-limiter.enabled=true")
	holdsBack(ctx, t, n, refusals{"ingester-push-reactive-limiter", "amphora_ingester_reactive_limiter_inflight_limit",
		"amphora_ingester_instance_rejected_requests_total", "ingester_push_reactive_limiter"})
}

// countLeftOut asks two distributors to leave out checks, of which the first may leave out one and the
// second none.
func countLeftOut(ctx context.Context, t *testing.T, allows, forbids string) {
	push := func(base, header string, kv ...string) reply {
		raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, kv...)}}).Marshal()
		must(t, err)
		return call(ctx, t, http.MethodPost, base+"/api/v1/push", snappy.Encode(nil, raw), "X-Scope-OrgID", "odd", header, "true")
	}
	const names, count = "X-Mimir-SkipLabelNameValidation", "X-Mimir-SkipLabelCountValidation"
	many := []string{"__name__", "many"}
	for i := range 40 {
		many = append(many, fmt.Sprintf("l%02d", i), "v")
	}
	odd := []string{"__name__", "odd", "a-b", "c"}
	stored(t, push(allows, count, many...))
	refused(t, push(allows, names, many...), 400, "max-label-names-per-series") // the other header
	refused(t, push(allows, names, odd...), 400, "label-invalid")               // not allowed here
	refused(t, push(forbids, count, many...), 400, "max-label-names-per-series")
	refused(t, push(forbids, names, odd...), 400, "label-invalid")
}

// shares waits until each of the distributors lets through want samples a second of one tenant, and as many
// requests of another. A limiter whose burst is not used up counts by itself: what is let through between
// two moments at which nothing was left is the rate, however slow the client is.
func shares(ctx context.Context, t *testing.T, want float64, nodes []*harness.Node) {
	at := time.Now()
	drain := func(n *harness.Node, tenant string) (taken int, err error) {
		for ctx.Err() == nil {
			at = at.Add(time.Millisecond)
			r := pushV1(ctx, t, n.URL(""), tenant, floats(at, 1, "__name__", "up", "by", n.Spec.Name))
			if r.status == http.StatusTooManyRequests {
				return taken, nil
			}
			if r.status != http.StatusOK {
				return taken, hopeless(r)
			}
			taken++
		}
		return taken, ctx.Err()
	}
	for _, tenant := range []string{"samples", "requests"} {
		for _, n := range nodes {
			ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
			err := harness.Poll(ctx, func(context.Context) error {
				if _, err := drain(n, tenant); err != nil {
					return err
				}
				began := time.Now()
				pause(ctx, t, 1500*time.Millisecond)
				taken, err := drain(n, tenant)
				took := time.Since(began).Seconds()
				if rate := float64(taken) / took; err == nil && math.Abs(float64(taken)-want*took) > 0.2*want*took {
					err = fmt.Errorf("%s lets through %.1f a second of %s, want %g", n.Spec.Name, rate, tenant, want)
				}
				return err
			})
			cancel()
			must(t, err)
		}
	}
}

// hopeless is an answer that ends a poll.
func hopeless(r reply) error { return harness.Giveup(errors.New(r.String())) }

// refusals are those of a limiter: their id, the metric of the limit, and the counter of refusals with a reason.
type refusals struct{ id, limit, counter, reason string }

// holdsBack makes pushes slow by many large ones, and asserts that a process takes fewer at once until they
// are quick again.
func holdsBack(ctx context.Context, t *testing.T, n *harness.Node, by refusals) {
	limit := func() float64 { return scrape(ctx, t, n.URL("/metrics"), by.limit) }
	var tick, taken atomic.Int64
	tick.Store(time.Now().Add(-30 * time.Minute).UnixMilli())
	push := func(worker, series int) reply {
		at := time.UnixMilli(tick.Add(1))
		list := make([]prompb.TimeSeries, series)
		for i := range list {
			list[i] = floats(at, 1, "__name__", "load", "series", fmt.Sprint(i), "worker", fmt.Sprint(worker))
		}
		return pushV1(ctx, t, n.URL(""), "loud", list...)
	}
	// load pushes from several clients until enough says so, and counts what was refused.
	load := func(workers, series int, enough func() bool) (held int64) {
		var stop atomic.Bool
		var refusals atomic.Int64
		var all sync.WaitGroup
		defer all.Wait() // also if it takes too long
		defer stop.Store(true)
		for w := range workers {
			all.Go(func() {
				for !stop.Load() && ctx.Err() == nil {
					switch r := push(w, series); {
					case r.status == http.StatusServiceUnavailable && strings.Contains(r.body, "(err-amphora-"+by.id+")") && r.header.Get("Retry-After") != "":
						refusals.Add(1)
						select {
						case <-time.After(20 * time.Millisecond):
						case <-ctx.Done():
						}
					case r.status != http.StatusOK:
						t.Errorf("a push is answered %s", r)
						return
					default:
						taken.Add(1)
					}
				}
			})
		}
		// A limiter learns from how long pushes take, which beside other tests is long for long.
		patient, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		must(t, harness.Poll(patient, func(context.Context) error {
			if !enough() && !t.Failed() {
				return fmt.Errorf("under %d clients of %d series the limit is %g, and %d pushes were refused", workers, series, limit(), refusals.Load())
			}
			return nil
		}))
		stop.Store(true)
		all.Wait()
		return refusals.Load()
	}
	// A limiter compares with how long pushes took before, of which it wants a second and 50 pushes: what is slow at first is
	// not slow for it.
	began := time.Now()
	if held := load(1, 1, func() bool { return time.Since(began) > 3*time.Second && taken.Load() > 200 }); held != 0 {
		t.Fatalf("one quiet client had %d pushes refused, and the limit is %g", held, limit())
	}
	before := limit()
	counted := func() float64 {
		return scrape(ctx, t, n.URL("/metrics"), by.counter, "reason", by.reason)
	}
	held := load(32, 2000, func() bool { return counted() > 10 && (limit() <= before/2 || limit() <= 3) })
	if got := counted(); float64(held) != got || held == 0 {
		t.Errorf("%d pushes were refused, and %g counted", held, got)
	}
	// A limit that fewer than half as many come to does not rise. It may fall some more before: the end of the large pushes is
	// beside the first of the small ones, and many clients are slower than one.
	low := limit()
	load(max(4, int(low)), 1, func() bool {
		now := limit()
		low = min(low, now)
		return now > low+1
	})
	for range 20 {
		stored(t, push(0, 1))
	}
	t.Logf("of many large pushes %d were refused, the limit fell from %g to %g, and rose to %g", held, before, low, limit())
}
