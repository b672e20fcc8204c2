package engine

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestAQueryTakesWhatItHoldsOfTheProcessAndNoMoreThanItsTenantMay asks what holds a value for each step of
// each series, and what does not.
func TestAQueryTakesWhatItHoldsOfTheProcessAndNoMoreThanItsTenantMay(t *testing.T) {
	db := teststorage.New(t)
	app := db.Appender(t.Context())
	for i := range 200 {
		ls := labels.FromStrings("__name__", "m", "i", strings.Repeat("x", i+1))
		for at := range int64(100) {
			if _, err := app.Append(0, ls, at*60_000, float64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Timeout: time.Minute, MaxSamples: 50_000_000, LookbackDelta: 5 * time.Minute, MaxConcurrent: 4}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	ledger := memory.New(memory.Limits{Process: 1 << 50, Go: 1 << 50}, memory.Deps{})
	view := limits.View{}
	e.Bound(ledger, func(tenant.ID) limits.View { return view })
	account := ledger.Account(memory.Queries)
	run := func(qs string, held bool) *promql.Result {
		t.Helper()
		ctx := tenant.Inject(t.Context(), "a")
		q, err := e.NewRangeQuery(ctx, db, nil, qs, time.Unix(0, 0), time.Unix(6000, 0), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		res := q.Exec(ctx)
		if got := account.Held(); held != (got > 200*6000*8) {
			t.Errorf("%s holds %d bytes", qs, got)
		}
		q.Close()
		if got := account.Held(); got != 0 {
			t.Errorf("%s left %d bytes behind", qs, got)
		}
		return res
	}
	if res := run("m", true); res.Err != nil {
		t.Error(res.Err)
	}
	if res := run("sum(m)", false); res.Err != nil {
		t.Error(res.Err)
	}
	view = limits.MaxEstimatedMemoryConsumptionPerQuery.With(view, 1<<20)
	if res := run("m", false); errs.KindOf(res.Err) != errs.TooLarge || !strings.Contains(res.Err.Error(), "err-amphora-max-estimated-memory-consumption-per-query") {
		t.Errorf("over the limit: %v", res.Err)
	}
	if res := run("sum(m)", false); res.Err != nil {
		t.Errorf("a query that streams: %v", res.Err)
	}
}
