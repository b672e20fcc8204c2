package querier

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// partialReads reads series, label names, and values of three labels, and says which tenants are in the
// answers, which warnings there are, and what failed.
func partialReads(ctx context.Context, t *testing.T, f *Federation) map[string]partialAnswer {
	t.Helper()
	out := map[string]partialAnswer{}
	all := labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
	for name, sorted := range map[string]bool{"sorted": true, "unsorted": false} {
		q, err := f.Querier(0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		set := q.Select(ctx, sorted, &storage.SelectHints{Start: 0, End: 1 << 40}, all)
		var a partialAnswer
		for set.Next() {
			if id := set.At().Labels().Get(TenantLabel); !slices.Contains(a.tenants, id) {
				a.tenants = append(a.tenants, id)
			}
		}
		a.notes, a.err = set.Warnings(), set.Err()
		slices.Sort(a.tenants)
		out[name] = a
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	q, err := f.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	var names, values, ids partialAnswer
	_, names.notes, names.err = q.LabelNames(ctx, nil)
	_, values.notes, values.err = q.LabelValues(ctx, "__name__", nil)
	ids.tenants, ids.notes, ids.err = q.LabelValues(ctx, TenantLabel, nil, all)
	out["names"], out["values"], out["tenants"] = names, values, ids
	return out
}

type partialAnswer struct {
	tenants []string
	notes   annotations.Annotations
	err     error
}

// TestPartialDataIsNeverSilent: a tenant that fails is left out only where that is switched on and asked for,
// and then a warning names it; if all fail, or the query has ended, the answer fails.
func TestPartialDataIsNeverSilent(t *testing.T) {
	a, b := newNode(t, ""), newNode(t, "")
	add(t, a, reference(3, 20))
	add(t, b, reference(3, 20))
	c := newCluster(t, []*node{a, b}, nil)
	c.ring.set.MaxErrors = 0
	broken := map[tenant.ID]bool{"t2": true}
	c.q.deps.Limits = func(id tenant.ID) limits.View { // of which one tenant may not select a single series
		if broken[id] {
			return limits.MaxFetchedSeriesPerQuery.With(c.limits, 1)
		}
		return c.limits
	}
	ids := []tenant.ID{"t1", "t2", "t3"}
	asks := work.WithReading(tenant.InjectMany(t.Context(), ids), work.Reading{Partial: true})
	for name, tc := range map[string]struct {
		ctx context.Context
		f   *Federation
	}{
		"not switched on": {asks, NewFederation(c.q, 4, false)},
		"not asked for":   {tenant.InjectMany(t.Context(), ids), NewFederation(c.q, 4, true)},
	} {
		for kind, x := range partialReads(tc.ctx, t, tc.f) {
			if (kind == "sorted" || kind == "unsorted") && (x.err == nil || !strings.Contains(x.err.Error(), "t2")) {
				t.Errorf("%s, %s: %v, want an error about t2", name, kind, x.err)
			}
		}
	}
	both := NewFederation(c.q, 4, true)
	for kind, x := range partialReads(asks, t, both) {
		if x.err != nil {
			t.Errorf("%s: %v", kind, x.err)
		}
		if kind != "sorted" && kind != "unsorted" {
			continue
		}
		if !slices.Contains(x.tenants, "t1") || !slices.Contains(x.tenants, "t3") {
			t.Errorf("%s: series of %v, want those of t1 and t3", kind, x.tenants)
		}
		if len(x.notes) != 1 || !names(x.notes, "tenant t2") {
			t.Errorf("%s: warnings %v, want one about t2", kind, x.notes)
		}
	}
	broken["t1"], broken["t3"] = true, true
	for kind, x := range partialReads(asks, t, both) {
		if (kind == "sorted" || kind == "unsorted") && x.err == nil {
			t.Errorf("%s: all tenants fail, and the answer does not", kind)
		}
	}
	ended, cancel := context.WithCancel(asks)
	cancel()
	for kind, x := range partialReads(ended, t, both) {
		if x.err == nil {
			t.Errorf("%s: the query has ended, and the answer does not fail", kind)
		}
	}
}

func names(ws annotations.Annotations, text string) bool {
	for _, w := range ws {
		if strings.Contains(w.Error(), text) && errors.Is(w, annotations.PromQLWarning) {
			return true
		}
	}
	return false
}

// TestLabelsOfPartialDataTellWhoIsMissing is the same for what is asked of each tenant by a call.
func TestLabelsOfPartialDataTellWhoIsMissing(t *testing.T) {
	f := NewFederation(newCluster(t, []*node{newNode(t, "")}, nil).q, 4, true)
	ids := []tenant.ID{"t1", "t2", "t3"}
	ctx := work.WithReading(t.Context(), work.Reading{Partial: true})
	failing := func(bad ...tenant.ID) func(context.Context, tenant.ID) (string, error) {
		return func(_ context.Context, id tenant.ID) (string, error) {
			if slices.Contains(bad, id) {
				return "half", errs.New(errs.Unavailable, "down")
			}
			return string(id), nil
		}
	}
	got, notes, err := spare(ctx, f, ids, failing("t2"))
	if err != nil || !slices.Equal(got, []string{"t1", "", "t3"}) || len(notes) != 1 || !names(notes, "tenant t2") {
		t.Errorf("one fails: %q, %v, %v", got, notes, err)
	}
	if _, _, err := spare(ctx, f, ids, failing(ids...)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("all fail: %v, want Unavailable", err)
	}
	if _, notes, err := spare(t.Context(), f, ids, failing("t2")); errs.KindOf(err) != errs.Unavailable || len(notes) > 0 {
		t.Errorf("not asked for: %v, %v, want Unavailable", notes, err)
	}
}
