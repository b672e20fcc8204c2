package ruler

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func TestQueriesOfRulesSayThatTheyAreOfRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld(t).ruler(t, "a", nil)
		var asked, others atomic.Int64
		r.deps.Evaluate = func(ctx context.Context, _ string, _ time.Time) (promql.Vector, error) {
			if asked.Add(1); work.ClassOf(ctx) != work.Rule {
				others.Add(1)
			}
			return nil, nil
		}
		defer start(t, r)()
		put(t, r, "{name: g, interval: 10s, query_offset: 0s, rules: [{record: r, expr: vector(1)}, {alert: a, expr: vector(1)}]}")
		time.Sleep(2 * time.Minute)
		if asked.Load() < 4 || others.Load() > 0 {
			t.Errorf("of %d queries %d were of another class", asked.Load(), others.Load())
		}
	})
}
