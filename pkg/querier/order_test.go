package querier

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// aroundTenant returns each of n random series once, sorted, with labels whose names sort before, like and after TenantLabel.
func aroundTenant(random *rand.Rand, n int) []labels.Labels {
	names := []string{"Env", "__a", "__name__", "__replica__", TenantLabel, "__z", "instance", "zone"}
	found := map[string]labels.Labels{}
	for range n {
		ls := labels.NewBuilder(labels.FromStrings("__name__", fmt.Sprint("m", random.IntN(3))))
		for _, name := range names {
			if random.IntN(3) == 0 {
				ls.Set(name, fmt.Sprint(random.IntN(3)))
			}
		}
		found[ls.Labels().String()] = ls.Labels()
	}
	out := make([]labels.Labels, 0, len(found))
	for _, ls := range found {
		out = append(out, ls)
	}
	slices.SortFunc(out, labels.Compare)
	return out
}

// shown is what series look like to who reads the tenants, in order.
func shown(stored []labels.Labels, ids ...tenant.ID) []labels.Labels {
	var b labels.Builder
	var out []labels.Labels
	for _, id := range ids {
		for _, ls := range stored {
			out = append(out, withTenant(&b, ls, id))
		}
	}
	slices.SortFunc(out, labels.Compare)
	return out
}

// differ names the first series that is another one than it should be.
func differ(got, want []labels.Labels) string {
	for i := range min(len(got), len(want)) {
		if !labels.Equal(got[i], want[i]) {
			return fmt.Sprintf("series %d is %s, want %s", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d series, want %d", len(got), len(want))
	}
	return ""
}

func read[S named](t *testing.T, set seriesSet[S]) []labels.Labels {
	t.Helper()
	var out []labels.Labels
	for set.Next() {
		out = append(out, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		t.Error(err)
	}
	return out
}

// TestSeriesOfSeveralTenantsAreInTheOrderOfTheirLabels reads samples and chunks of one, two and three tenants, and unites two
// selections, which relies on the order.
func TestSeriesOfSeveralTenantsAreInTheOrderOfTheirLabels(t *testing.T) {
	stored := aroundTenant(rand.New(rand.NewPCG(1, 2)), 1500)
	n := newNode(t, "")
	app := n.db.AppenderV2(t.Context())
	for i, ls := range stored {
		if _, err := app.Append(0, ls, 0, 1000, float64(i), nil, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	f := NewFederation(newCluster(t, []*node{n}, nil).q, 4, false)
	samples, err := f.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, samples)
	chunks, err := f.ChunkQuerier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, chunks)
	hints := &storage.SelectHints{Start: 0, End: 1 << 40}
	for _, ids := range [][]tenant.ID{{"a", "b"}, {"a", "b", "c"}} {
		ctx, want := tenant.InjectMany(t.Context(), ids), shown(stored, ids...)
		if wrong := differ(read(t, samples.Select(ctx, true, hints, all)), want); wrong != "" {
			t.Errorf("samples of %v: %s", ids, wrong)
		}
		if wrong := differ(read(t, chunks.Select(ctx, true, hints, all)), want); wrong != "" {
			t.Errorf("chunks of %v: %s", ids, wrong)
		}
		one := labels.MustNewMatcher(labels.MatchEqual, TenantLabel, "b")
		if wrong := differ(read(t, samples.Select(ctx, true, hints, all, one)), shown(stored, "b")); wrong != "" {
			t.Errorf("one of %v: %s", ids, wrong)
		}
		part := labels.MustNewMatcher(labels.MatchEqual, "__replica__", "1")
		both := []storage.SeriesSet{samples.Select(ctx, true, hints, all), samples.Select(ctx, true, hints, part)}
		if wrong := differ(read(t, storage.NewMergeSeriesSet(both, 0, storage.ChainedSeriesMerge)), want); wrong != "" {
			t.Errorf("two selections of %v: %s", ids, wrong)
		}
	}
}

// listed is series without samples, as they are stored.
type listed struct {
	of  []labels.Labels
	i   int
	err error
}

func (l *listed) Next() bool                        { l.i++; return l.i <= len(l.of) }
func (l *listed) At() storage.Series                { return storage.NewListSeries(l.of[l.i-1], nil) }
func (l *listed) Err() error                        { return l.err }
func (l *listed) Warnings() annotations.Annotations { return nil }

// TestFewSeriesWaitForTheirOrder counts those that are held back: none of the usual ones, and not those behind one
// that a single other one must go before.
func TestFewSeriesWaitForTheirOrder(t *testing.T) {
	nested := []labels.Labels{labels.FromStrings("__name__", "m"), labels.FromStrings("__name__", "m", "__o", "1"), labels.FromStrings("__name__", "m", "__o", "1", "__p", "1")}
	var usual, mixed, own []labels.Labels
	for i := range 1000 {
		usual = append(usual, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), labels.FromStrings("Env", "x", "__name__", "m", "__o", fmt.Sprint(i), "i", "1"))
		own = append(own, labels.FromStrings("__name__", fmt.Sprint("m", i%100), TenantLabel, fmt.Sprint(i), "i", fmt.Sprint(-i)))
	}
	mixed = append(mixed, nested...)
	mixed = append(mixed, usual...)
	for name, tc := range map[string]struct {
		stored []labels.Labels
		most   int
	}{
		"usual": {usual, 0}, "one below the other": {mixed, len(nested)}, "with a label of their own": {own, 10 + 1},
	} {
		slices.SortFunc(tc.stored, labels.Compare)
		set := &ordered[storage.Series]{set: &tenantSet{SeriesSet: &listed{of: tc.stored}, id: "a"}}
		var got []labels.Labels
		for set.Next() {
			got = append(got, set.At().Labels())
			if len(set.held) > tc.most {
				t.Fatalf("%s: %d series wait, at most %d should", name, len(set.held), tc.most)
			}
		}
		if wrong := differ(got, shown(tc.stored, "a")); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

// TestSeriesThatWaitGoWithAnError: after an error no series comes.
func TestSeriesThatWaitGoWithAnError(t *testing.T) {
	set := &ordered[storage.Series]{set: &listed{of: shown([]labels.Labels{labels.FromStrings("__name__", "m")}, "a"), err: errDown}}
	for range 2 {
		if set.Next() || set.Err() == nil {
			t.Errorf("there is a series, and the error is %v", set.Err())
		}
	}
}

// BenchmarkSeriesOfSeveralTenants reads the labels of 20,000 series of two tenants.
func BenchmarkSeriesOfSeveralTenants(b *testing.B) {
	var stored []labels.Labels
	for i := range 10_000 {
		stored = append(stored, labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%05d", i), "job", "j", "pod", "p"))
	}
	b.ReportAllocs()
	for b.Loop() {
		var sets []storage.SeriesSet
		for _, id := range []tenant.ID{"a", "b"} {
			sets = append(sets, &ordered[storage.Series]{set: &tenantSet{SeriesSet: &listed{of: stored}, id: id}})
		}
		n := 0
		for set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge); set.Next(); n++ {
			_ = set.At().Labels()
		}
		if n != 20_000 {
			b.Fatal(n)
		}
	}
}
