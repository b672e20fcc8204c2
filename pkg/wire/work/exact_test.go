package work

import (
	"reflect"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// exactly returns v as it is sent.
func exactly(t testing.TB, v parser.Value) []byte {
	t.Helper()
	var out []byte
	if err := Exact(v, nil, "x", func(b []byte) { out = append(out, b...) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExactAnswersAreReadAsTheyWere(t *testing.T) {
	foo := labels.FromStrings("__name__", "foo", "a", "b")
	long := promql.Series{Metric: foo}
	for i := range int64(30_000) { // more than one message
		long.Floats = append(long.Floats, promql.FPoint{T: i*15_000 - 1000, F: float64(i)})
	}
	for name, v := range map[string]parser.Value{
		"scalar": promql.Scalar{T: 5, V: 7},
		"vector": promql.Vector{{Metric: foo, T: 7, F: 1.5}, {T: 7, H: nativeHistogram()}},
		"matrix": promql.Matrix{long, {Metric: labels.FromStrings("x", "y"), Histograms: []promql.HPoint{{T: 1, H: nativeHistogram()}, {T: 9, H: nativeHistogram()}}}, long},
		"empty":  promql.Matrix{},
	} {
		sent := exactly(t, v)
		got, err := ReadExact(sent)
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%s: arrived as %v, %v", name, got, err)
		}
		if _, err := ReadExact(sent[:len(sent)-1]); err == nil {
			t.Errorf("%s: an answer that is cut off is read", name)
		}
	}
}

func TestOnlyWhoNamesTheTypeGetsExactAnswers(t *testing.T) {
	for accept, want := range map[string]bool{"": false, "*/*": false, "application/json": false, ExactType: true, "application/json;q=0.5, " + ExactType + ";q=1": true} {
		if AcceptsExact(accept) != want {
			t.Errorf("%q: %t", accept, !want)
		}
	}
}

// FuzzReadExact reads whatever a server may send.
func FuzzReadExact(f *testing.F) {
	f.Add(exactly(f, promql.Vector{{T: 7, H: nativeHistogram()}}))
	f.Add(exactly(f, promql.Matrix{{Floats: []promql.FPoint{{T: 1, F: 2}}}}))
	f.Add([]byte{})
	f.Add([]byte{5})
	f.Fuzz(func(_ *testing.T, body []byte) {
		v, err := ReadExact(body)
		if err == nil && v != nil {
			_ = v.String()
		}
	})
}
