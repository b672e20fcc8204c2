package work

import (
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestAQueryArrivesAsItWasAsked(t *testing.T) {
	asked := Query{Text: "up", Start: 1, End: 3, Step: 2, Lookback: time.Minute, PerStepStats: true, ShardIndex: 1, ShardCount: 2, Reading: Reading{Only: Ingesters, Latest: true}}
	msg, err := (&Work{Class: Rule, Query: &asked}).ToWire()
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromWire(t.Context(), msg, nil)
	if err != nil || got.Class != Rule || !reflect.DeepEqual(*got.Query, asked) {
		t.Errorf("%+v became %+v, %v", asked, got.Query, err)
	}
}

func TestHeadersSayWhatIsRead(t *testing.T) {
	h := http.Header{}
	if r := ReadingIn(h); r != (Reading{}) || !r.Asks(Ingesters) || !r.Asks(StoreGateways) || ReadingOf(WithReading(t.Context(), r)) != r {
		t.Errorf("no headers: %+v", r)
	}
	h.Set(FilterHeader, "x, store-gateway")
	h.Set(ConsistencyHeader, "strong")
	if r := ReadingIn(h); !r.Latest || r.Asks(Ingesters) || !r.Asks(StoreGateways) || ReadingOf(WithReading(t.Context(), r)) != r {
		t.Errorf("headers: %+v", r)
	}
}
