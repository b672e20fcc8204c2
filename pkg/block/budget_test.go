package block

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// spent fails the test unless err says that a budget is used up.
func spent(t *testing.T, err error, id string) {
	t.Helper()
	if errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "err-amphora-"+id) || strings.Count(err.Error(), "err-amphora") != 1 {
		t.Errorf("got %v, want a refusal with the id %s", err, id)
	}
}

func TestABudgetIsSharedAndTimeGivesItBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	v := map[tenant.ID]limits.View{"poor": limits.MaxObjectStoreListsPerHour.With(limits.MaxObjectStoreGetsPerHour.With(limits.View{}, 10), 1)}
	reg := prometheus.NewRegistry()
	b := NewBudget(BudgetDeps{Limits: func(id tenant.ID) limits.View { return v[id] }, Reg: reg, Now: func() time.Time { return now },
		Sharers: func(tenant.ID) int { return 2 }})
	full := objstore.NewInMemBucket()
	bkt, listed := b.Bucket(full), b.Listings(full)
	ctx := t.Context()
	read := func(name string) error { _, err := bkt.Exists(ctx, name); return err }
	list := func(of objstore.Bucket, dir string) error {
		return of.Iter(ctx, dir, func(string) error { return nil })
	}
	for range 5 {
		if err := read("poor/x"); err != nil {
			t.Fatal(err)
		}
	}
	spent(t, read("poor/x"), "max-object-store-gets-per-hour")
	_, err := bkt.Get(ctx, "poor/x")
	spent(t, err, "max-object-store-gets-per-hour")
	_, err = bkt.GetRange(ctx, "poor/x", 0, 1)
	spent(t, err, "max-object-store-gets-per-hour")
	_, err = bkt.Attributes(ctx, "poor/x")
	spent(t, err, "max-object-store-gets-per-hour")
	if err := errors.Join(read("rich/x"), list(bkt, "")); err != nil {
		t.Errorf("what has no budget is refused: %v", err)
	}
	if _, err := listed.Exists(ctx, "poor/x"); err != nil {
		t.Errorf("reads are within a budget of listings: %v", err)
	}
	if err := list(listed, "poor/"); err != nil {
		t.Errorf("the first listing: %v", err)
	}
	spent(t, list(bkt, "poor/"), "max-object-store-lists-per-hour")
	spent(t, listed.IterWithAttributes(ctx, "poor", nil), "max-object-store-lists-per-hour")

	now = now.Add(12 * time.Minute) // a fifth of an hour
	if err := read("poor/x"); err != nil {
		t.Errorf("after a while: %v", err)
	}
	spent(t, read("poor/x"), "max-object-store-gets-per-hour")
	now = now.Add(100 * time.Hour)
	for range 5 {
		if err := read("poor/x"); err != nil {
			t.Fatal(err)
		}
	}
	spent(t, read("poor/x"), "max-object-store-gets-per-hour") // no more than an hour's is saved up
	v["poor"] = limits.View{}
	if err := read("poor/x"); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if got := testutil.ToFloat64(b.refused.WithLabelValues("get")); got != 6 {
		t.Errorf("%v reads are counted as refused, want 6", got)
	}
}

func TestAQueryOverItsBudgetIsRefusedAndOneOfWarmPagesIsNot(t *testing.T) {
	dir := wideBlock(t, 500)
	bkt := newBucket(t)
	meta := upload(t, bkt, dir)
	v := limits.MaxObjectStoreGetsPerHour.With(limits.View{}, 1000)
	b := NewBudget(BudgetDeps{Limits: func(tenant.ID) limits.View { return v }, Reg: prometheus.NewRegistry()})
	s := newStore(t, b.Bucket(bkt), t.TempDir(), 1<<30)
	defer closeStore(t, s)
	sel := Selection{MaxTime: tsdb.DefaultBlockDuration, Matchers: nil}
	sel.Matchers = append(sel.Matchers, eq("__name__", "m1"))
	want, _, err := readAll(t.Context(), s, meta, sel)
	if err != nil || len(want) == 0 {
		t.Fatalf("%d series, %v", len(want), err)
	}
	v = limits.MaxObjectStoreGetsPerHour.With(limits.View{}, 1)
	cold := newStore(t, b.Bucket(bkt), t.TempDir(), 1<<30)
	defer closeStore(t, cold)
	_, _, err = readAll(t.Context(), cold, meta, sel)
	spent(t, err, "max-object-store-gets-per-hour")
	if got, _, err := readAll(t.Context(), s, meta, sel); err != nil || len(got) != len(want) {
		t.Errorf("warm: %d series, want %d; %v", len(got), len(want), err)
	}
}
