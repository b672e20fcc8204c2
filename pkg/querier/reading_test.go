package querier

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func TestRequestsMayAskOneKindOfPlace(t *testing.T) {
	n := newNode(t, "")
	add(t, n, reference(5, 50))
	s := withBlocks(t, n)
	c := newCluster(t, []*node{n}, s)
	asked := func(only string) (ingesters, stores bool) {
		t.Helper()
		i, g := n.calls, s.gateways[0].calls
		if err := c.tryRead(reading(asTenant(t), work.Reading{Only: only}), t); err != nil {
			t.Fatal(err)
		}
		return n.calls > i, s.gateways[0].calls > g
	}
	for only, want := range map[string][2]bool{"": {true, true}, "ingester": {true, true}, "none": {true, true}} {
		if i, g := asked(only); i != want[0] || g != want[1] {
			t.Errorf("%q without the setting: ingesters %t, store-gateways %t", only, i, g)
		}
	}
	c.q.cfg.FilterQueryables = true
	for only, want := range map[string][2]bool{"": {true, true}, "ingester": {true, false}, "store-gateway": {false, true}, "store-gateway, ingester": {true, true}, "none": {}} {
		if i, g := asked(only); i != want[0] || g != want[1] {
			t.Errorf("%q: ingesters %t, store-gateways %t, want %v", only, i, g, want)
		}
	}
}

func TestBlocksThatWereUploadedBeforeAreReadByWhoAsksForThat(t *testing.T) {
	a, b := newNode(t, ""), newNode(t, "")
	add(t, a, reference(3, 20))
	add(t, b, reference(5, 50))
	s := withBlocks(t, a)
	c := s.old(t)
	same(t, "at first", c.read(t, 0, 1<<40), single(t, a, 0, 1<<40))
	s.cut(t, b)
	same(t, "within a minute", c.read(t, 0, 1<<40), single(t, a, 0, 1<<40))
	ctx := reading(asTenant(t), work.Reading{Latest: true})
	if err := c.tryRead(ctx, t); err != nil {
		t.Fatal(err)
	}
	same(t, "afterwards", c.read(t, 0, 1<<40), single(t, b, 0, 1<<40))
	idx, err := s.Indexes.At(t.Context(), "t1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Indexes.Since(t.Context(), "t1", begun(ctx)); err != nil || again != idx {
		t.Errorf("an index that was read since then is read again, %v", err)
	}
	if again, err := s.Indexes.Since(t.Context(), "t1", time.Now()); err != nil || again == idx {
		t.Errorf("an older index is used, %v", err)
	}
}

func TestStoreGatewaysOfPreferredZonesAreAskedFirst(t *testing.T) {
	s := withBlocks(t)
	s.Ring = storeRing{n: 3, zones: []string{"a", "b", "c"}}
	c := s.old(t)
	for _, w := range []struct {
		prefer []string
		want   string
	}{{nil, "012"}, {[]string{"b"}, "102"}, {[]string{"c", "b"}, "120"}, {[]string{"none"}, "012"}} {
		c.q.cfg.PreferAvailabilityZones = w.prefer
		owners, err := c.q.owners(scope{tenant: "t1"}, []ulid.ULID{{1}}, time.Now())
		if got := strings.Join(owners[ulid.ULID{1}], ""); err != nil || got != w.want {
			t.Errorf("with %v preferred the order is %s, want %s; %v", w.prefer, got, w.want, err)
		}
	}
}
