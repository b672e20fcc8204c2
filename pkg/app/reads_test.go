package app

import (
	"net/http"
	"slices"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func TestWhoWantsANewAnswerSaysSo(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"Cache-Control", "max-age=3, No-Store", true}, {"Cache-Control", "no-cache", false},
		{"X-Read-Consistency", "strong", true}, {"X-Read-Consistency", "eventual", false}, {"X-Other", "strong", false},
		{"X-Filter-Queryables", "ingester", true},
	} {
		if got := noStore(http.Header{c.name: {c.value}}); got != c.want {
			t.Errorf("%s: %s is %v", c.name, c.value, got)
		}
	}
}

func TestQueriesHaveTheClassOfWhoAsks(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        work.Class
	}{
		{tenant.ClassHeader, "rule", work.Rule}, {tenant.ClassHeader, "nonsense", work.AdHoc},
		{"X-Dashboard-Uid", "d", work.Dashboard}, {"X-Panel-Id", "1", work.Dashboard}, {"X-Other", "1", work.AdHoc},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(c.name, c.value)
		if got := work.ClassOf(classify(r)); got != c.want {
			t.Errorf("%s: %s is %s", c.name, c.value, got)
		}
	}
}

func TestTheZoneOfTheProcessIsPreferredUnlessAnotherIsNamed(t *testing.T) {
	var c Config
	if got := c.querier().PreferAvailabilityZones; got != nil {
		t.Errorf("without zones %v are preferred", got)
	}
	c.Ring.Zone = "a"
	if got := c.querier().PreferAvailabilityZones; !slices.Equal(got, []string{"a"}) {
		t.Errorf("preferred are %v", got)
	}
	c.Querier.PreferAvailabilityZones = []string{"b", "c"}
	if got := c.querier().PreferAvailabilityZones; !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("preferred are %v", got)
	}
}
