package work

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"
)

func TestAQueryArrivesAsItWasAsked(t *testing.T) {
	asked := Query{Text: "up", Start: 1, End: 3, Step: 2, Lookback: time.Minute, PerStepStats: true, Packed: true, ShardIndex: 1, ShardCount: 2, Reading: Reading{Only: Ingesters, Latest: true, Partial: true}}
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

// TestPartialDataIsForAnswersThatCanTell: where no warning has a place, what is lacking would be silent.
func TestPartialDataIsForAnswersThatCanTell(t *testing.T) {
	for path, want := range map[string]bool{
		"/prometheus/api/v1/query": true, "/prometheus/api/v1/query_range": true, "/api/v1/series": true, "/p/api/v1/labels": true, "/prometheus/api/v1/label/job/values": true,
		"/prometheus/api/v1/read": false, "/prometheus/api/v1/query_exemplars": false, "/prometheus/api/v1/metadata": false, "/prometheus/api/v1/export": false,
		"/prometheus/api/v1/cardinality/label_values": false, "/prometheus/federate": false, "/query": false, "": false,
	} {
		for _, said := range []string{"true", "false", ""} {
			r := &http.Request{URL: &url.URL{Path: path}, Header: http.Header{PartialHeader: {said}}}
			if got := ReadingFor(r).Partial; got != (want && said == "true") {
				t.Errorf("%s at %s: %v", said, path, got)
			}
		}
	}
}
