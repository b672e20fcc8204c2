package querier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// paper is a document in memory.
type paper struct{ text []byte }

func (p *paper) Read(context.Context, string) ([]byte, error) { return p.text, nil }

func (p *paper) Change(_ context.Context, _ string, change func([]byte) ([]byte, error)) (err error) {
	p.text, err = change(p.text)
	return err
}

// erasing lets c take requests to delete series.
func (c *cluster) erasing(t *testing.T) func(start, end int64, selectors ...string) {
	t.Helper()
	requests := tombstone.NewRequests(tombstone.Deps{Logger: quiet, Documents: &paper{}, Limits: func(tenant.ID) limits.View { return c.limits },
		Grace: time.Hour, Settle: time.Hour, Now: func() time.Time { return c.now }})
	c.q.deps.Tombstones = requests.InForce
	return func(start, end int64, selectors ...string) {
		t.Helper()
		if _, err := requests.Add(t.Context(), "t1", selectors, start, end); err != nil {
			t.Fatal(err)
		}
	}
}

// half returns a cluster that has the older half of dots in a block, and the newer one in ingesters.
func half(t *testing.T, dots []dot) *cluster {
	t.Helper()
	old, a, b := newNode(t, ""), newNode(t, "a"), newNode(t, "b")
	add(t, old, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t >= 3_000_000 }))
	recent := slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t < 2_900_000 })
	add(t, a, recent)
	add(t, b, slices.DeleteFunc(slices.Clone(recent), func(d dot) bool { return d.series == 5 }))
	c := newCluster(t, []*node{a, b}, withBlocks(t, old))
	c.ring.set.MaxErrors = 0
	return c
}

func TestDeletedSamplesAreNowhereToBeSeen(t *testing.T) {
	dots := reference(12, 400)
	c := half(t, dots)
	remove := c.erasing(t)
	remove(-1<<60, 1<<60, `{i="004"}`, `{i="011",job="2"}`)
	remove(2_950_000, 3_100_000, `{job="0"}`) // over the seam, and in the middle of chunks
	remove(1_000_000, 1_500_000, `m{i="006"}`)
	truth := newNode(t, "")
	add(t, truth, slices.DeleteFunc(dots, func(d dot) bool {
		return d.series == 4 || d.series == 11 || d.series%3 == 0 && d.t >= 2_950_000 && d.t <= 3_100_000 ||
			d.series == 6 && d.t >= 1_000_000 && d.t <= 1_500_000
	}))
	for _, rg := range [][2]int64{{0, 1 << 40}, {0, 2_000_000}, {2_990_000, 3_050_000}, {1_100_000, 1_200_000}} {
		// A TSDB also names series without samples in the range.
		want := slices.DeleteFunc(single(t, truth, rg[0], rg[1]), func(line string) bool { return !strings.Contains(line, "} ") })
		same(t, fmt.Sprint("samples of ", rg), c.read(t, rg[0], rg[1]), want)
		q, err := c.q.ChunkQuerier(rg[0], rg[1])
		if err != nil {
			t.Fatal(err)
		}
		set := storage.NewSeriesSetFromChunkSeriesSet(q.Select(asTenant(t), true, nil, all))
		same(t, fmt.Sprint("chunks of ", rg), dump(t, set), want)
		closing(t, q)
	}
	soughtEqualsRead(t, c)
}

// soughtEqualsRead seeks for every time and compares with reading on.
func soughtEqualsRead(t *testing.T, c *cluster) {
	t.Helper()
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	set := q.Select(asTenant(t), true, nil, all)
	for set.Next() {
		var times []int64
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			times = append(times, it.AtT())
		}
		for _, step := range []int64{7_000, 40_000, 700_000} {
			it = set.At().Iterator(nil)
			for at := int64(0); at <= times[len(times)-1]; at += step {
				i, _ := slices.BinarySearch(times, at)
				if it.Seek(at) == chunkenc.ValNone || it.AtT() != times[i] {
					t.Fatalf("%s: seek %d in steps of %d found %d, want %d", set.At().Labels(), at, step, it.AtT(), times[i])
				}
			}
		}
	}
}

func TestLabelsOfDeletedSeriesAreNotListed(t *testing.T) {
	dots := reference(7, 300)
	for at := range int64(300) {
		dots = append(dots, dot{series: 12, t: at * 15_000})
	}
	c := half(t, dots)
	remove := c.erasing(t)
	remove(-1<<60, 1<<60, `{i="012"}`, `{i="001"}`)
	remove(-1<<60, 2_000_000, `{i="002"}`)
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	want := []string{"000", "002", "003", "004", "005", "006"}
	if values, _, err := q.LabelValues(asTenant(t), "i", nil); err != nil || !slices.Equal(values, want) {
		t.Errorf("values %v, %v; want %v", values, err, want)
	}
	if values, _, err := q.LabelValues(asTenant(t), "i", &storage.LabelHints{Limit: 2}); err != nil || !slices.Equal(values, want[:2]) {
		t.Errorf("limited values %v, %v; want %v", values, err, want[:2])
	}
	var series []string
	set := q.Select(asTenant(t), true, &storage.SelectHints{Start: 0, End: 1 << 40, Func: "series"}, all)
	for set.Next() {
		series = append(series, set.At().Labels().Get("i"))
	}
	if set.Err() != nil || !slices.Equal(series, want) {
		t.Errorf("series %v, %v; want %v", series, set.Err(), want)
	}
	none := labels.MustNewMatcher(labels.MatchEqual, "i", "012")
	if names, _, err := q.LabelNames(asTenant(t), nil, none); err != nil || len(names) != 0 {
		t.Errorf("names of a deleted series %v, %v; want none", names, err)
	}
	if names, _, err := q.LabelNames(asTenant(t), nil); err != nil || !slices.Equal(names, []string{"__name__", "i", "job"}) {
		t.Errorf("names %v, %v", names, err)
	}
}

func TestRetentionBySelectorIsHiddenFromQueries(t *testing.T) {
	dots := reference(6, 400)
	c := half(t, dots)
	c.erasing(t)
	v, err := limits.RetentionBySelector.WithText(c.limits, `[{selector: '{i="001"}', period: 9h}, {selector: '{job="1"}', period: 1m}]`)
	if err != nil {
		t.Fatal(err)
	}
	c.limits = v
	truth := newNode(t, "")
	add(t, truth, slices.DeleteFunc(dots, func(d dot) bool { return d.series == 1 && d.t < 3_600_000 || d.series == 4 }))
	same(t, "samples", c.read(t, 0, 1<<40), single(t, truth, 0, 1<<40))
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	n := 0
	set := q.Select(asTenant(t), true, &storage.SelectHints{Start: 0, End: 1 << 40, Func: "series"}, all)
	for set.Next() {
		n++
	}
	if set.Err() != nil || n != 5 {
		t.Errorf("%d series, %v; want 5", n, set.Err())
	}
}

func TestLabelsThatOnlyRetentionHidesAreNotListed(t *testing.T) {
	dots := slices.DeleteFunc(reference(6, 400), func(d dot) bool { return d.series == 1 && d.t >= 3_600_000 })
	c := half(t, dots) // the cut is an hour after the beginning; series 1 ends there, series 4 is all too old
	remove := c.erasing(t)
	remove(-1<<60, 1<<60, `{i="005"}`)
	v, err := limits.RetentionBySelector.WithText(c.limits, `[{selector: '{i="001"}', period: 9h}, {selector: '{job="1"}', period: 1m}]`)
	if err != nil {
		t.Fatal(err)
	}
	c.limits = v
	q, err := c.q.Querier(0, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, q)
	want := []string{"000", "002", "003"}
	if values, _, err := q.LabelValues(asTenant(t), "i", nil); err != nil || !slices.Equal(values, want) {
		t.Errorf("values %v, %v; want %v", values, err, want)
	}
	if values, _, err := q.LabelValues(asTenant(t), "job", nil); err != nil || !slices.Equal(values, []string{"0", "2"}) {
		t.Errorf("values of another label %v, %v", values, err)
	}
	old := labels.MustNewMatcher(labels.MatchEqual, "job", "1")
	if names, _, err := q.LabelNames(asTenant(t), nil, old); err != nil || len(names) != 0 {
		t.Errorf("names of series that are too old %v, %v; want none", names, err)
	}
}

func TestDeletedSeriesAreNotCountedAmongTheRecent(t *testing.T) {
	c := half(t, reference(6, 400))
	remove := c.erasing(t)
	remove(-1<<60, 1<<60, `{i="004"}`)
	remove(-1<<60, 3_000_000, `{i="002"}`) // has newer samples
	for _, active := range []bool{false, true} {
		var got []string
		err := c.q.RecentSeries(asTenant(t), active, []*labels.Matcher{all}, func(ls labels.Labels) error {
			got = append(got, ls.Get("i"))
			return nil
		})
		if want := []string{"000", "001", "002", "003", "005"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("active %v: %v, %v; want %v", active, got, err, want)
		}
	}
}

func TestMetadataOfDeletedMetricsIsNotListed(t *testing.T) {
	c := half(t, reference(2, 400))
	c.q.deps.Described = func(context.Context, tenant.ID) ([]block.Metadata, error) {
		return []block.Metadata{{Name: "erased", Type: "gauge"}, {Name: "silent", Type: "gauge"}}, nil
	}
	remove := c.erasing(t)
	remove(-1<<60, 1<<60, `{i="000"}`, `erased`)
	names := func(want ...string) {
		t.Helper()
		md, err := c.q.Metadata(asTenant(t), "", 9, 9)
		if err != nil || !slices.Equal(slices.Sorted(maps.Keys(md)), want) {
			t.Errorf("metadata %v, %v; want of %v", md, err, want)
		}
	}
	names("m", "silent", "za", "zb") // m has a series left; nobody knows series of the others
	remove(-1<<60, 1<<60, `m{i="001"}`)
	c.now = c.now.Add(time.Minute)
	names("silent", "za", "zb")
}

func TestAQueryFailsThatDoesNotKnowWhatToHide(t *testing.T) {
	c := half(t, reference(2, 300))
	c.q.deps.Tombstones = func(context.Context, tenant.ID) (tombstone.Set, error) {
		return tombstone.Set{}, errs.New(errs.Unavailable, "down")
	}
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("%v, want Unavailable", err)
	}
}

func TestChunksHandedOutHaveWhatTheIteratorHas(t *testing.T) {
	chunk := func(from, to int64) chunks.Meta {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for at := from; at <= to; at += 10 {
			app.Append(0, at, float64(at))
		}
		return chunks.Meta{MinTime: from, MaxTime: to, Chunk: c}
	}
	apart := []chunks.Meta{chunk(0, 100), chunk(110, 200), chunk(210, 300)}
	for name, c := range map[string]struct {
		of series
		ok bool
	}{
		"whole":       {series{metas: apart, mint: 0, maxt: 300}, true},
		"cut":         {series{metas: apart, mint: 50, maxt: 250}, true},
		"hidden":      {series{metas: apart, mint: 0, maxt: 300, hidden: tombstone.Intervals{{Mint: 60, Maxt: 130}, {Mint: 215, Maxt: 400}}}, true},
		"overlapping": {series{metas: []chunks.Meta{chunk(0, 100), chunk(95, 200)}, mint: 0, maxt: 300}, false},
	} {
		c.of.untrimmed = true
		s := sampleSeries{&c.of}
		metas, mint, maxt, ok := s.Chunks(nil)
		if ok != c.ok {
			t.Errorf("%s: ok is %v", name, ok)
		}
		if !ok {
			continue
		}
		var got, want []int64
		for _, m := range metas {
			for it := m.Chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
				if at := it.AtT(); at >= mint && at <= maxt {
					got = append(got, at)
				}
			}
		}
		for it := s.Iterator(nil); it.Next() != chunkenc.ValNone; {
			want = append(want, it.AtT())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, want)
		}
	}
}
