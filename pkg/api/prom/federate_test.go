package prom

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// federate asks for the newest samples of what the selectors match, in the format that accept names.
func (a *API) federate(accept string, selectors ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/federate?"+url.Values{"match[]": selectors}.Encode(), http.NoBody)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	return a.do(r)
}

func TestFederateShowsTheNewestSamples(t *testing.T) {
	a := newAPI(t, setup{})
	const requests = "# TYPE req_total untyped\n" +
		"req_total{code=\"200\",job=\"a\",instance=\"\"} 600 600000\n" +
		"req_total{code=\"500\",job=\"a\",instance=\"\"} 10 600000\n"
	for _, c := range []struct {
		name      string
		selectors []string
		status    int
		want      string
	}{
		{"two series of one name", []string{"req_total"}, 200, requests},
		{"selectors that overlap show each once", []string{"req_total", `{job="a"}`, `{code="500"}`}, 200, requests},
		{"of two names, sorted by them", []string{"req_total", "dotted"}, 200, "# TYPE dotted untyped\ndotted{job=\"b\",U__my_2e_label=\"x\",instance=\"\"} 1 600000\n" + requests},
		{"native histograms have no form in text", []string{"lat"}, 200, ""},
		{"nothing", []string{"nothing"}, 200, ""},
		{"no selector is none", nil, 200, ""},
		{"a selector of everything", []string{`{job=~".*"}`}, 400, "match[]"},
		{"no selector", []string{"req_total{"}, 400, "parse error"},
		{"a range", []string{"req_total[5m]"}, 400, ""},
	} {
		rec := a.federate("text/plain;version=0.0.4;escaping=values", c.selectors...)
		if rec.Code != c.status || c.status == 200 && rec.Body.String() != c.want || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.name, rec.Code, rec.Body, c.status, c.want)
		}
	}
}

func TestFederateShowsNativeHistogramsInProtobuf(t *testing.T) {
	rec := newAPI(t, setup{}).federate("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "lat", `{code="500"}`)
	dec := expfmt.NewDecoder(bytes.NewReader(rec.Body.Bytes()), expfmt.ResponseFormat(rec.Header()))
	var families []*dto.MetricFamily
	for {
		f := new(dto.MetricFamily)
		err := dec.Decode(f)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		families = append(families, f)
	}
	if len(families) != 2 || families[0].GetName() != "lat" || families[1].GetName() != "req_total" {
		t.Fatalf("families %v", families)
	}
	h := families[0].Metric[0].Histogram
	if families[0].GetType() != dto.MetricType_HISTOGRAM || h.GetSampleCountFloat() != 4 || h.GetSampleSum() != 8 || len(h.PositiveSpan) != 1 || len(h.PositiveCount) != 2 || h.PositiveCount[1] != 3 {
		t.Errorf("histogram %v", families[0])
	}
	if m := families[1].Metric; len(m) != 1 || m[0].GetUntyped().GetValue() != 10 || m[0].GetTimestampMs() != 600_000 {
		t.Errorf("floats %v", m)
	}
}

func TestFederateForgetsWhatIsOldOrHasEnded(t *testing.T) {
	a := newAPI(t, setup{})
	for back, want := range map[time.Duration]int{0: 2, 4 * time.Minute: 2, 5 * time.Minute: 2, 5*time.Minute + time.Millisecond: 0} {
		a.b.Now = func() time.Time { return time.UnixMilli(600_000).Add(back) }
		if rec := a.federate("", "req_total"); rec.Code != 200 || strings.Count(rec.Body.String(), "\nreq_total{") != want {
			t.Errorf("%s after the last sample: %d %s, want %d series", back, rec.Code, rec.Body, want)
		}
	}
}

// failing is a storage whose series end with an error.
type failing struct {
	storage.SampleAndChunkQueryable
	err error
}

func (f failing) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := f.SampleAndChunkQueryable.Querier(mint, maxt)
	return failingQuerier{q, f.err}, err
}

type failingQuerier struct {
	storage.Querier
	err error
}

func (q failingQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return failingSet{q.Querier.Select(ctx, sorted, hints, ms...), q.err}
}

type failingSet struct {
	storage.SeriesSet
	err error
}

func (s failingSet) Err() error { return s.err }

// TestFederateNeverShowsAPart scrapes while the storage fails after its last series: nothing of them is shown.
func TestFederateNeverShowsAPart(t *testing.T) {
	a := newAPI(t, setup{store: func(s storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable {
		return failing{s, errs.New(errs.Unavailable, "an ingester is gone")}
	}})
	if rec := a.federate("", "req_total"); rec.Code != 503 || strings.Contains(rec.Body.String(), "req_total{") || !strings.Contains(rec.Body.String(), "an ingester is gone") {
		t.Errorf("answered %d %s", rec.Code, rec.Body)
	}
}
