package load

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// receiver decodes what it is sent with the generated code, and remembers it by series.
type receiver struct {
	t        *testing.T
	statuses []int // of the first answers; then 204

	mu        sync.Mutex // guards what follows
	calls     int
	times     map[string][]int64
	text      int // bytes of labels
	exemplars int
	histogram int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls++; r.calls <= len(r.statuses) {
		w.WriteHeader(r.statuses[r.calls-1])
		return
	}
	packed, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	plain, err := s2.Decode(nil, packed)
	if err != nil {
		r.t.Error(err)
	}
	tenant := req.Header.Get("X-Scope-OrgID")
	if req.Header.Get("Content-Type") == "application/x-protobuf" {
		r.v1(tenant, plain)
	} else {
		r.v2(tenant, plain)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) v1(tenant string, body []byte) {
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		r.t.Error(err)
	}
	var b labels.ScratchBuilder
	for _, s := range m.Timeseries {
		ls := s.ToLabels(&b, nil)
		for _, x := range s.Samples {
			r.sample(tenant, ls, x.Timestamp)
		}
		for _, x := range s.Histograms {
			r.sample(tenant, ls, x.Timestamp)
			r.histogram++
		}
		r.exemplars += len(s.Exemplars)
	}
}

func (r *receiver) v2(tenant string, body []byte) {
	var m writev2.Request
	if err := m.Unmarshal(body); err != nil {
		r.t.Error(err)
	}
	b := labels.NewScratchBuilder(0)
	for _, s := range m.Timeseries {
		ls, err := s.ToLabels(&b, m.Symbols)
		if err != nil {
			r.t.Error(err)
		}
		for _, x := range s.Samples {
			r.sample(tenant, ls, x.Timestamp)
		}
		for _, x := range s.Histograms {
			r.sample(tenant, ls, x.Timestamp)
			r.histogram++
		}
		for _, x := range s.Exemplars {
			if _, err := x.ToExemplar(&b, m.Symbols); err != nil {
				r.t.Error(err)
			}
			r.exemplars++
		}
	}
}

func (r *receiver) sample(tenant string, ls labels.Labels, t int64) {
	if r.times == nil {
		r.times = map[string][]int64{}
	}
	key := tenant + ls.String()
	r.times[key] = append(r.times[key], t)
	ls.Range(func(l labels.Label) { r.text += len(l.Name) + len(l.Value) })
}

func send(t *testing.T, r *receiver, o Options, scrapes int) (*Load, Report) {
	t.Helper()
	srv := httptest.NewServer(r)
	defer srv.Close()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var sum Report
	for range scrapes / 2 {
		b, err := l.Prepare(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Target{URL: srv.URL, Connections: 3, Retries: 3}.Send(t.Context(), b, o.Version2)
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(rep)
	}
	return l, sum
}

func TestEverySeriesGetsItsSamplesInOrder(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		for _, churn := range []float64{0, 0.2} {
			t.Run(fmt.Sprintf("v2=%v/churn=%v", v2, churn), func(t *testing.T) {
				r := &receiver{t: t}
				l, rep := send(t, r, Options{Series: 1500, Tenants: 2, RequestSamples: 400, Version2: v2, Churn: churn,
					Exemplars: 0.5, NativeHistograms: 0.1, Start: time.UnixMilli(1e12)}, 6)
				if want := 2 * 1500 * 6; rep.Acknowledged != want || rep.Refused != 0 {
					t.Fatalf("%d samples acknowledged, %d refused, want %d and 0", rep.Acknowledged, rep.Refused, want)
				}
				n := 0
				first, last := l.Times()
				for series, times := range r.times {
					n += len(times)
					if !slices.IsSorted(times) || len(slices.Compact(slices.Clone(times))) != len(times) {
						t.Fatalf("samples of %s at %v", series, times)
					}
					if times[0] < first.UnixMilli() || times[len(times)-1] > last.UnixMilli() {
						t.Fatalf("samples of %s at %v, outside of %d to %d", series, times, first.UnixMilli(), last.UnixMilli())
					}
				}
				if n != rep.Acknowledged || len(r.times) != l.DistinctSeries() {
					t.Errorf("received %d samples of %d series, want %d of %d", n, len(r.times), rep.Acknowledged, l.DistinctSeries())
				}
				if churn == 0 != (l.DistinctSeries() == 3000) {
					t.Errorf("%d series at churn %v", l.DistinctSeries(), churn)
				}
				if r.exemplars == 0 || r.histogram == 0 {
					t.Errorf("%d exemplars, %d native histograms", r.exemplars, r.histogram)
				}
				if text := r.text / n; text < 300 || text > 340 {
					t.Errorf("%d bytes of label text a series", text)
				}
			})
		}
	}
}

func TestWhatMayBeSentAgainIsSentAgain(t *testing.T) {
	r := &receiver{t: t, statuses: []int{503, 429, 500}}
	_, rep := send(t, r, Options{Series: 100}, 2)
	if rep.Acknowledged != 200 || rep.Retries != 3 || rep.Refused != 0 {
		t.Errorf("%+v", rep)
	}
	r = &receiver{t: t, statuses: []int{400}}
	_, rep = send(t, r, Options{Series: 100}, 2)
	if rep.Acknowledged != 100 || rep.Refused != 100 || rep.Retries != 0 || rep.Refusal == "" {
		t.Errorf("%+v", rep)
	}
}

func TestWhatIsMissingIsReported(t *testing.T) {
	l, rep := send(t, &receiver{t: t}, Options{Series: 100}, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"2"],[2,"2"]]}]}}`)
	}))
	defer srv.Close()
	found, err := l.ReadBack(t.Context(), srv.URL, nil)
	if err != nil || found != (Found{Series: 1, Samples: 2}) {
		t.Fatalf("%+v, %v", found, err)
	}
	if l.Check(found, rep) == nil {
		t.Error("99 series are missing and nobody says so")
	}
}
