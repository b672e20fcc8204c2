package querier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

var all = labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")

var allMatchers = []*labels.Matcher{all}

// dot is one sample of the reference data; h is a histogram's number, or 0 for a float.
type dot struct {
	series int
	t      int64
	v      float64
	h      int64
}

// reference makes n series of m samples, 15 s apart; every fourth series has native histograms.
func reference(n, m int) []dot {
	var dots []dot
	for j := range m {
		for i := range n {
			d := dot{series: i, t: int64(j) * 15_000, v: float64(i*10_000 + j)}
			if i%4 == 3 {
				d.h = int64(j%97) + 1 // with counter resets
			}
			dots = append(dots, d)
		}
	}
	return dots
}

func lsetOf(i int) labels.Labels {
	return labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i), "job", fmt.Sprint(i%3))
}

func add(t testing.TB, n *node, dots []dot) {
	t.Helper()
	app := n.db.AppenderV2(t.Context())
	for _, d := range dots {
		var fh *histogram.FloatHistogram
		var h *histogram.Histogram
		v := d.v
		if d.h != 0 {
			h, v = tsdbutil.GenerateTestHistogram(d.h), 0
		}
		if _, err := app.Append(0, lsetOf(d.series), 0, d.t, v, h, fh, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// dump reads a series set as one line per series; histograms print without their reset hints,
// which depend on how chunks were cut.
func dump(t testing.TB, set storage.SeriesSet) []string {
	t.Helper()
	var out []string
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		var b strings.Builder
		fmt.Fprintf(&b, "%s", s.Labels())
		it = s.Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if vt == chunkenc.ValFloat {
				at, v := it.At()
				fmt.Fprintf(&b, " %d=%g", at, v)
			} else {
				at, h := it.AtFloatHistogram(nil)
				fmt.Fprintf(&b, " %d=%s", at, h)
			}
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		out = append(out, b.String())
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}

// single answers from one TSDB: the truth.
func single(t testing.TB, n *node, mint, maxt int64) []string {
	t.Helper()
	q, err := n.db.Querier(mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	return dump(t, q.Select(t.Context(), true, nil, all))
}

func (c *cluster) read(t testing.TB, mint, maxt int64) []string {
	t.Helper()
	q, err := c.q.Querier(mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	return dump(t, q.Select(asTenant(t), true, nil, all))
}

// readAnyOrder is read for who does not need the series sorted.
func (c *cluster) readAnyOrder(t testing.TB, mint, maxt int64) []string {
	t.Helper()
	q, err := c.q.Querier(mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	return dump(t, q.Select(asTenant(t), false, nil, all))
}

func closing(t testing.TB, q interface{ Close() error }) {
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// tryRead returns the error of a selection of everything.
func (c *cluster) tryRead(ctx context.Context, t testing.TB) error {
	t.Helper()
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	set := q.Select(ctx, false, nil, all)
	for set.Next() {
	}
	return set.Err()
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d series, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: series %d\n got %.400s\nwant %.400s", what, i, got[i], want[i])
			return
		}
	}
}

func TestReplicasMergeToTheWholeOnceEach(t *testing.T) {
	dots := reference(12, 500)
	truth := newNode(t, "")
	add(t, truth, dots)
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	r := rand.New(rand.NewPCG(1, 2))
	// Every sample is acknowledged by two of three, as a quorum write leaves it.
	parts := make([][]dot, 3)
	for _, d := range dots {
		without := r.IntN(6) // half of the samples reach all three
		for i := range parts {
			if i != without {
				parts[i] = append(parts[i], d)
			}
		}
	}
	for i, n := range nodes {
		add(t, n, parts[i])
	}
	nodes[1].old = true // in the midst of an upgrade
	c := newCluster(t, nodes, nil)
	for range 5 { // whichever two are asked
		for _, rg := range [][2]int64{{0, 1 << 40}, {1_000_000, 2_000_000}, {1_000_001, 1_000_001}, {15_000, 15_000}} {
			want := single(t, truth, rg[0], rg[1])
			same(t, fmt.Sprint(rg), c.read(t, rg[0], rg[1]), want)
			slices.Sort(want)
			same(t, "in any order", slices.Sorted(slices.Values(c.readAnyOrder(t, rg[0], rg[1]))), want)
		}
	}
	c.zones()
	same(t, "zones", c.read(t, 0, 1<<40), single(t, truth, 0, 1<<40))
}

func TestChunksReadAsTheSamplesDo(t *testing.T) {
	dots := reference(8, 400)
	truth, a, b := newNode(t, ""), newNode(t, "a"), newNode(t, "b")
	add(t, truth, dots)
	add(t, a, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t%45_000 == 0 }))
	add(t, b, dots)
	c := newCluster(t, []*node{a, b}, nil)
	c.ring.set.MaxErrors = 0
	q, err := c.q.ChunkQuerier(100_000, 4_000_000)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	set := storage.NewSeriesSetFromChunkSeriesSet(q.Select(asTenant(t), true, nil, all))
	same(t, "chunks", dump(t, set), single(t, truth, 100_000, 4_000_000))
}

func TestSeekFindsWhatNextWould(t *testing.T) {
	dots := reference(4, 400)
	a, b := newNode(t, "a"), newNode(t, "b")
	add(t, a, dots)
	add(t, b, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t > 2_000_000 && d.t < 3_000_000 }))
	c := newCluster(t, []*node{a, b}, nil)
	c.ring.set.MaxErrors = 0
	q, err := c.q.Querier(30_000, 5_000_000)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	set := q.Select(asTenant(t), true, nil, all)
	if !set.Next() {
		t.Fatal(set.Err())
	}
	for _, seek := range [][]int64{{0, 30_001, 30_001, 60_000}, {2_500_000}, {1_000_000, 999_999, 2_000_001, 4_999_999, 5_000_001, 6_000_000}} {
		it := set.At().Iterator(nil)
		at := int64(-1)
		for _, s := range seek {
			want := max(s, 30_000, at)
			if want%15_000 != 0 {
				want += 15_000 - want%15_000
			}
			vt := it.Seek(s)
			if want > 5_000_000 {
				if vt != chunkenc.ValNone {
					t.Errorf("seek %d found %d", s, it.AtT())
				}
				if it.Next() != chunkenc.ValNone {
					t.Errorf("next after the end found %d", it.AtT())
				}
				continue
			}
			if vt == chunkenc.ValNone || it.AtT() != want {
				t.Fatalf("seek %d in %v: found %v, want %d", s, seek, vt, want)
			}
			at = want
		}
	}
}

func TestOneLostReplicaIsNotSeenAndTwoAreAnError(t *testing.T) {
	dots := reference(4, 50)
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	for _, n := range nodes {
		add(t, n, dots)
	}
	for _, zones := range []bool{false, true} {
		c := newCluster(t, nodes, nil)
		if zones {
			c.zones()
		}
		want := single(t, nodes[0], 0, 1<<40)
		for i := range nodes {
			nodes[i].fail(errDown)
			for range 3 {
				same(t, "one down", c.read(t, 0, 1<<40), want)
			}
			nodes[i].fail(nil)
		}
		nodes[0].fail(errDown)
		nodes[2].fail(errDown)
		if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable || !errors.Is(err, errDown) {
			t.Errorf("zones %v, two down: %v, want Unavailable", zones, err)
		}
		q, _ := c.q.Querier(0, 1<<40)
		if _, _, err := q.LabelNames(asTenant(t), nil); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("labels, two down: %v, want Unavailable", err)
		}
		nodes[0].fail(nil)
		nodes[2].fail(nil)
	}
}

// One ingester was away while the samples came, another has lost its disk since: only the third
// has them, and a quorum alone may be the other two.
func TestAnEmptiedDiskIsMadeUpForByTheOthers(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	add(t, nodes[0], reference(4, 50))
	nodes[1].since = 1 << 35
	for _, zones := range []bool{false, true} {
		c := newCluster(t, nodes, nil)
		if zones {
			c.zones()
		}
		want := single(t, nodes[0], 0, 1<<40)
		for range 10 { // who is asked is drawn
			same(t, "one disk emptied", c.read(t, 0, 1<<40), want)
			q, _ := c.q.Querier(0, 1<<40)
			if names, _, err := q.LabelNames(asTenant(t), nil); err != nil || len(names) == 0 {
				t.Fatalf("label names: %v, %v", names, err)
			}
		}
		// With the third gone as well the answer is that of the quorum, and the metric says so.
		nodes[0].fail(errDown)
		if err := c.tryRead(asTenant(t), t); err != nil {
			t.Errorf("quorum without the third: %v", err)
		}
		nodes[0].fail(nil)
		if n := testutil.ToFloat64(c.q.metrics.unhealed); n == 0 {
			t.Error("a read that could not be made whole was not counted")
		}
	}
}

func TestTwoNodesOfOneZoneMayBeLost(t *testing.T) {
	dots := reference(4, 50)
	nodes := []*node{newNode(t, "a"), newNode(t, "a"), newNode(t, "b"), newNode(t, "b"), newNode(t, "c"), newNode(t, "c")}
	for i, n := range nodes {
		add(t, n, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.series%2 != i%2 }))
	}
	c := newCluster(t, nodes, nil)
	c.zones()
	nodes[2].fail(errDown)
	nodes[3].fail(errDown)
	for range 4 {
		if got := c.read(t, 0, 1<<40); len(got) != 4 {
			t.Fatalf("%d series, want 4", len(got))
		}
	}
	nodes[4].fail(errDown)
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("nodes of two zones lost: %v, want Unavailable", err)
	}
}

func TestAnErrorOfTheRequestIsNotRetriedElsewhere(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	for _, n := range nodes {
		n.fail(errs.New(errs.Invalid, "bad matcher"))
	}
	c := newCluster(t, nodes, nil)
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Invalid {
		t.Errorf("got %v, want Invalid", err)
	}
	c.ring.err = errors.New("empty ring")
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("no ring: %v, want Unavailable", err)
	}
}

func TestSecondReplicaIsSparedUntilNeeded(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	c := newCluster(t, nodes, nil)
	c.zones()
	c.read(t, 0, 1<<40)
	if n := nodes[0].calls + nodes[1].calls + nodes[2].calls; n != 2 {
		t.Errorf("%d of 3 zones were asked, want 2", n)
	}
}

func TestBlocksAndIngestersOverlapToOneTruth(t *testing.T) {
	dots := reference(12, 500)
	truth := newNode(t, "")
	add(t, truth, dots)
	cut := func(keep func(dot) bool) []dot {
		return slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return !keep(d) })
	}
	// Blocks of three replicas with holes, which reach to 5,000 s; ingesters from 3,000 s on.
	var old []*node
	for i := range 3 {
		n := newNode(t, "")
		add(t, n, cut(func(d dot) bool { return d.t < 5_000_000 && int(d.t/15_000)%3 != i }))
		old = append(old, n)
	}
	a, b := newNode(t, "a"), newNode(t, "b")
	add(t, a, cut(func(d dot) bool { return d.t > 3_000_000 }))
	add(t, b, cut(func(d dot) bool { return d.t > 3_000_000 && d.series != 5 }))
	c := newCluster(t, []*node{a, b}, withBlocks(t, old...))
	c.ring.set.MaxErrors = 0
	for _, rg := range [][2]int64{{0, 1 << 40}, {0, 2_000_000}, {4_000_000, 4_500_000}, {6_000_000, 7_000_000}} {
		same(t, fmt.Sprint(rg), c.read(t, rg[0], rg[1]), single(t, truth, rg[0], rg[1]))
	}
}

func TestWhoIsAskedDependsOnTheAge(t *testing.T) {
	oldNode, n := newNode(t, ""), newNode(t, "a")
	add(t, oldNode, reference(2, 10))
	add(t, n, reference(4, 10))
	c := newCluster(t, []*node{n}, withBlocks(t, oldNode))
	c.now = time.UnixMilli(14 * time.Hour.Milliseconds())
	if got := c.read(t, 0, 200_000); len(got) != 2 {
		t.Errorf("a range older than 13 h: %d series, want the blocks' 2", len(got))
	}
	c.q.cfg.QueryStoreAfter = 12 * time.Hour
	c.now = time.UnixMilli(11 * time.Hour.Milliseconds())
	if got := c.read(t, 0, 200_000); len(got) != 4 {
		t.Errorf("a range younger than 12 h: %d series, want the ingester's 4", len(got))
	}
	if _, err := New(Config{QueryStoreAfter: 14 * time.Hour, QueryIngestersWithin: 13 * time.Hour}, Deps{}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("settings that leave a gap: %v, want Invalid", err)
	}
}

func TestLimitsStopAQuery(t *testing.T) {
	old := newNode(t, "")
	add(t, old, reference(10, 200))
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	for _, n := range nodes {
		add(t, n, reference(10, 200))
	}
	for what, c := range map[string]*cluster{"ingesters": newCluster(t, nodes, nil), "blocks": newCluster(t, nil, withBlocks(t, old))} {
		if what == "blocks" {
			c.now = time.UnixMilli(100 * time.Hour.Milliseconds())
		}
		var none limits.View
		for id, v := range map[string]limits.View{
			"max-series-per-query":       limits.MaxFetchedSeriesPerQuery.With(none, 9),
			"max-chunks-per-query":       limits.MaxFetchedChunksPerQuery.With(none, 9),
			"max-chunks-bytes-per-query": limits.MaxFetchedChunkBytesPerQuery.With(none, 1000),
			"max-query-length":           limits.MaxPartialQueryLength.With(none, time.Hour),
		} {
			c.limits = v
			err := c.tryRead(asTenant(t), t)
			if errs.KindOf(err) != errs.TooLarge || errs.HTTPStatus(err) != 422 || !strings.Contains(err.Error(), "(err-amphora-"+id+")") {
				t.Errorf("%s, %s: %v", what, id, err)
			}
		}
		c.limits = limits.MaxFetchedSeriesPerQuery.With(none, 10)
		if got := c.read(t, 0, 1<<40); len(got) != 10 {
			t.Errorf("%s: at the limit %d series, want 10", what, len(got))
		}
		for name, v := range map[string]limits.View{
			"lookback":  limits.MaxQueryLookback.With(none, 9*time.Hour+30*time.Minute),
			"retention": limits.CompactorBlocksRetentionPeriod.With(none, 9*time.Hour+30*time.Minute),
		} {
			c.limits = v
			if what == "ingesters" {
				want := single(t, nodes[0], 1_800_000, 1<<40)
				same(t, name, c.read(t, 0, 1<<40), want)
			}
		}
	}
}

func TestLabelsComeFromEverywhereSortedAndOnce(t *testing.T) {
	old, a, b := newNode(t, ""), newNode(t, "a"), newNode(t, "b")
	add(t, old, reference(7, 5))
	add(t, a, []dot{{series: 9, t: 1000}, {series: 3, t: 1000}})
	add(t, b, []dot{{series: 8, t: 1000}})
	c := newCluster(t, []*node{a, b}, withBlocks(t, old))
	c.ring.set.MaxErrors = 0
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	values, _, err := q.LabelValues(asTenant(t), "i", nil)
	if want := []string{"000", "001", "002", "003", "004", "005", "006", "008", "009"}; err != nil || !slices.Equal(values, want) {
		t.Errorf("values %v, %v; want %v", values, err, want)
	}
	values, _, err = q.LabelValues(asTenant(t), "i", &storage.LabelHints{Limit: 2}, labels.MustNewMatcher(labels.MatchEqual, "job", "2"))
	if want := []string{"002", "005"}; err != nil || !slices.Equal(values, want) {
		t.Errorf("limited values %v, %v; want %v", values, err, want)
	}
	names, _, err := q.LabelNames(asTenant(t), nil)
	if want := []string{"__name__", "i", "job"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %v, %v; want %v", names, err, want)
	}
	set := q.Select(asTenant(t), true, &storage.SelectHints{Start: 0, End: 1 << 40, Func: "series", Limit: 8}, all)
	var series []string
	for set.Next() {
		series = append(series, set.At().Labels().Get("i"))
	}
	if want := []string{"000", "001", "002", "003", "004", "005", "006", "008"}; set.Err() != nil || !slices.Equal(series, want) {
		t.Errorf("series %v, %v; want %v", series, set.Err(), want)
	}
}

func TestExemplarsMetadataAndStats(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	c := newCluster(t, nodes, nil)
	c.ring.set.MaxErrors = 0
	xq, err := c.q.ExemplarQuerier(asTenant(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := xq.Select(0, 5000, []*labels.Matcher{all})
	if err != nil || len(got) != 1 || len(got[0].Exemplars) != 4 || got[0].Exemplars[0].Ts != 1000 {
		t.Errorf("exemplars %v, %v; want one series with the shared one and one of each", got, err)
	}
	md, err := c.q.Metadata(asTenant(t), "", 3, 2)
	if err != nil || len(md) != 3 || len(md["m"]) != 2 || md["zc"] != nil {
		t.Errorf("metadata %v, %v", md, err)
	}
	stored, failed := []block.Metadata{{Name: "gone", Type: "gauge"}, {Name: "m", Type: "gauge", Help: "old"}}, error(nil)
	c.q.deps.Described = func(_ context.Context, id tenant.ID) ([]block.Metadata, error) { return stored, failed }
	md, err = c.q.Metadata(asTenant(t), "gone", 3, 2)
	if err != nil || len(md["gone"]) != 1 || md["gone"][0].Type != "gauge" {
		t.Errorf("of a metric that nobody sends any more: %v, %v", md, err)
	}
	if md, err = c.q.Metadata(asTenant(t), "m", 3, 9); err != nil || len(md["m"]) != 4 {
		t.Errorf("of a metric that is sent: %v, %v", md, err)
	}
	failed = errDown
	if md, err = c.q.Metadata(asTenant(t), "", 3, 2); err != nil || len(md) != 3 {
		t.Errorf("without the stored ones: %v, %v", md, err)
	}
	c.ring.set.MaxErrors = 1
	st, err := c.q.TenantStats(asTenant(t))
	if err != nil || st.Series != 100 || st.IngestionRate != 30 {
		t.Errorf("stats %+v, %v", st, err)
	}
	nodes[1].fail(errDown)
	if _, err := c.q.TenantStats(asTenant(t)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("stats with a node down: %v, want Unavailable", err)
	}
}

func TestTheTenantComesFromTheContext(t *testing.T) {
	c := newCluster(t, []*node{newNode(t, "a")}, nil)
	if err := c.tryRead(t.Context(), t); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("no tenant: %v", err)
	}
	if err := c.tryRead(tenant.InjectMany(t.Context(), []tenant.ID{"a", "b"}), t); errs.KindOf(err) != errs.Unprocessable {
		t.Errorf("two tenants: %v", err)
	}
}

func TestACancelledQueryEnds(t *testing.T) {
	nodes := []*node{newNode(t, "a"), newNode(t, "b"), newNode(t, "c")}
	for _, n := range nodes {
		n.hang = true
	}
	c := newCluster(t, nodes, nil)
	ctx, cancel := context.WithTimeout(asTenant(t), 20*time.Millisecond)
	defer cancel()
	if err := c.tryRead(ctx, t); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// Closing ends what is running without the caller's context.
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	set := q.Select(asTenant(t), false, nil, all)
	closing(t, q)
	if set.Next() || set.Err() == nil {
		t.Errorf("a closed query went on: %v", set.Err())
	}
	if set := q.Select(asTenant(t), false, nil, all); set.Next() || set.Err() == nil {
		t.Error("a closed query started again")
	}
}

func TestWaitingForASlotEndsWithTheContext(t *testing.T) {
	c := newCluster(t, []*node{newNode(t, "a")}, nil)
	for range maxFetches {
		if _, err := c.q.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(asTenant(t), 10*time.Millisecond)
	defer cancel()
	if err := c.tryRead(ctx, t); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
