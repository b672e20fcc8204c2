package distributor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// places returns the ingesters that have each series of t1, sorted.
func (c *cluster) places() map[string][]string {
	out := map[string][]string{}
	for addr, g := range c.ingesters {
		_, stored := g.read()
		for series := range stored {
			out[series] = append(out[series], addr)
		}
	}
	for _, addrs := range out {
		slices.Sort(addrs)
	}
	return out
}

// pushNew pushes n series that are new, and compares where they are with what r says.
func (c *cluster) pushNew(t *testing.T, round, n int, r ring.ReadRing) {
	t.Helper()
	list := make([]prompb.TimeSeries, n)
	for k := range list {
		list[k] = c.series(fmt.Sprintf("up,round=%d,k=%d", round, k))
	}
	if _, err := c.push(c.v1(list...)); err != nil {
		t.Fatal(err)
	}
	places := c.places()
	for k := range list {
		ls := labels.FromStrings("__name__", "up", "round", fmt.Sprint(round), "k", fmt.Sprint(k))
		rs, err := r.Get(ShardToken("t1", ls), ring.WriteNoExtend, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := rs.GetAddresses()
		slices.Sort(want)
		if got := places["t1 "+ls.String()]; !slices.Equal(got, want) {
			t.Fatalf("round %d: series %d is on %v, the ring says %v", round, k, got, want)
		}
	}
}

func TestNewSeriesGoWhereTheRingSays(t *testing.T) {
	for _, zones := range []bool{false, true} {
		t.Run(fmt.Sprintf("zones=%t", zones), func(t *testing.T) {
			c := newCluster(t, clusterOptions{replicas: 3, instances: 6, zones: zones})
			all := func() ring.ReadRing { return c.ring.ShuffleShard("", 0) }
			c.pushNew(t, 0, 400, all())
			c.pushNew(t, 1, 400, all()) // of which most lie in ranges that are known
			if c.watch.topo.Load().ranges == nil {
				t.Error("nothing is remembered of a ring that is whole")
			}
			c.change(func(d *ring.Desc) { c.addTo(d, 6, zones) }, func() bool { return c.ring.InstancesCount() == 7 })
			c.pushNew(t, 2, 400, all())
			c.change(func(d *ring.Desc) { edit(d, "ingester-0", func(i *ring.InstanceDesc) { i.ReadOnly = true }) },
				func() bool { return c.ring.WritableInstancesWithTokensCount() == 6 })
			c.pushNew(t, 3, 400, all())
			c.change(func(d *ring.Desc) { edit(d, "ingester-1", func(i *ring.InstanceDesc) { i.Timestamp = 1 }) }, func() bool {
				rs, err := c.ring.GetAllHealthy(ring.WriteNoExtend)
				return err == nil && len(rs.Instances) == 6
			})
			c.pushNew(t, 4, 400, all())
			if c.watch.topo.Load().ranges != nil {
				t.Error("ranges are remembered although the tokens of one that is silent are not known")
			}
			c.limit(func(v limits.View) limits.View { return limits.IngestionTenantShardSize.With(v, 3) })
			c.advance(time.Hour) // a tenant's shard is used at once if it is smaller
			c.pushNew(t, 5, 200, c.ring.ShuffleShard("t1", 3))
		})
	}
}

// A shard of a tenant has ranges of its own, also where those of the whole ring are known.
func TestNewSeriesOfAShardStayInIt(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 6})
	c.pushNew(t, 0, 500, c.ring.ShuffleShard("", 0))
	c.limit(func(v limits.View) limits.View { return limits.IngestionTenantShardSize.With(v, 2) })
	c.pushNew(t, 1, 500, c.ring.ShuffleShard("t1", 2))
}

// edit changes one instance of a ring.
func edit(d *ring.Desc, name string, f func(*ring.InstanceDesc)) {
	i := d.Ingesters[name]
	f(&i)
	d.Ingesters[name] = i
}

func TestARangeEndsBeforeItsTokenAsInTheRing(t *testing.T) {
	r := newTokenRanges([]ring.InstanceDesc{{Tokens: []uint32{10, 30}}, {Tokens: []uint32{20, 30}}}, 2)
	for token, want := range map[uint32]int{0: 0, 9: 0, 10: 1, 19: 1, 20: 2, 29: 2, 30: 0, 1 << 31: 0} {
		if r.of(token) != &r.sets[want] {
			t.Errorf("token %d is not in range %d", token, want)
		}
	}
	for _, none := range []*tokenRanges{newTokenRanges(nil, 0), newTokenRanges([]ring.InstanceDesc{{}}, 1), newTokenRanges([]ring.InstanceDesc{{Tokens: []uint32{1}}}, 2)} {
		if none != nil {
			t.Errorf("%v, want none", none)
		}
	}
}

// What is remembered of the names of neighbours must not let through what is checked by itself.
func TestNeighboursDoNotChangeWhatIsWrongWithASeries(t *testing.T) {
	names := []string{"__name__", "a", "b", "b-", "bad-name", "c", "", "d", "e", "é", "longer_than_allowed"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, scheme := range []string{"legacy", "utf8"} {
		l := readLimits(limits.NameValidationScheme.With(limits.MaxLabelValueLength.With(limits.MaxLabelNameLength.With(limits.View{}, 12), 18), scheme))
		var seen seenNames
		for range 20_000 {
			var ls []remotewrite.Label
			for _, n := range names {
				for range []int{0, 1, 1, 1, 1, 1, 1, 2}[rnd.IntN(8)] {
					value := []string{"v", "v", "v", "v", "v", "v", "é", "too long to be taken"}[rnd.IntN(8)]
					if n == metricName {
						value = []string{"up", "up", "up", "a:b", "not-a-legacy-one", "0", "\xff"}[rnd.IntN(7)]
					}
					ls = append(ls, remotewrite.Label{Name: []byte(n), Value: []byte(value)})
				}
				if rnd.IntN(3) == 0 {
					break
				}
			}
			leaves := uint16(0)
			ascii := !slices.ContainsFunc(ls, func(l remotewrite.Label) bool { return l.Value[0] >= utf8.RuneSelf || string(l.Name) == "é" })
			if got, want := l.checkLabels(ls, len(ls), leaves, ascii, &seen), l.checkLabels(ls, len(ls), leaves, false, new(seenNames)); got != want {
				t.Fatalf("%s: %s after %s: %+v, want %+v", scheme, ls, seen.names, got, want)
			}
		}
	}
}

func TestLabelsInOrderAreKnownToBe(t *testing.T) {
	for _, tc := range []struct {
		names []string
		want  bool
	}{
		{nil, true}, {[]string{"a"}, true}, {[]string{"", "a"}, true}, {[]string{"a", ""}, false}, {[]string{"a", "b"}, true}, {[]string{"b", "a"}, false},
		{[]string{"ab", "aa"}, false}, {[]string{"aa", "ab"}, true}, {[]string{"a", "a"}, true}, {[]string{"a", "aa"}, true}, {[]string{"aa", "a"}, false},
		{[]string{"Z", "_", "a", "\xff"}, true}, {[]string{"\xff", "a"}, false},
	} {
		var ls []remotewrite.Label
		for _, n := range tc.names {
			ls = append(ls, remotewrite.Label{Name: []byte(n)})
		}
		if got := sortedByName(ls); got != tc.want {
			t.Errorf("%q: %t, want %t", tc.names, got, tc.want)
		}
	}
}
