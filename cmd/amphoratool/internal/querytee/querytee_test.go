package querytee

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

func matrix(series string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + series + `]}}`
}

func TestWhatCountsAsTheSame(t *testing.T) {
	a := `{"metric":{"a":"1","b":"2"},"values":[[10,"1"],[20,"2"]]}`
	b := `{"metric":{"a":"3"},"values":[[10,"NaN"]]}`
	h := `{"metric":{},"histograms":[[10,{"count":"3","sum":"1.5","buckets":[[0,"0.5","1","3"]]}]]}`
	for name, c := range map[string]struct {
		want, got string
		same      bool
	}{
		"order of series and labels": {matrix(a + "," + b), matrix(b + `,{"metric":{"b":"2","a":"1"},"values":[[10,"1"],[20,"2"]]}`), true},
		"within the tolerance":       {matrix(a), matrix(strings.ReplaceAll(a, `"2"]]`, `"2.0000001"]]`)), true},
		"another value":              {matrix(a), matrix(strings.ReplaceAll(a, `"2"]]`, `"2.1"]]`)), false},
		"another time":               {matrix(a), matrix(strings.ReplaceAll(a, `[20,`, `[21,`)), false},
		"a value fewer":              {matrix(a), matrix(strings.ReplaceAll(a, `,[20,"2"]`, ``)), false},
		"a series fewer":             {matrix(a + "," + b), matrix(a), false},
		"a series more":              {matrix(a), matrix(a + "," + b), false},
		"a number for NaN":           {matrix(b), matrix(strings.ReplaceAll(b, "NaN", "0")), false},
		"what is new":                {matrix(a), matrix(strings.ReplaceAll(a, `[20,"2"]`, `[20,"2"],[99,"7"]`)), true},
		"a new series":               {matrix(a), matrix(a + `,{"metric":{"n":"1"},"values":[[99,"1"]]}`), true},
		"histograms":                 {matrix(h), matrix(strings.ReplaceAll(h, `"1.5"`, `"1.50000001"`)), true},
		"a bucket":                   {matrix(h), matrix(strings.ReplaceAll(h, `"1","3"`, `"1","4"`)), false},
		"a float for a histogram":    {matrix(h), matrix(`{"metric":{},"values":[[10,"3"]]}`), false},
		"scalars":                    {`{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`, `{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}`, false},
		"kinds":                      {matrix(""), `{"status":"success","data":{"resultType":"vector","result":[]}}`, false},
		"order of labels' names":     {`{"status":"success","data":["a","b"]}`, `{"status":"success","data":["b","a"]}`, true},
		"other names":                {`{"status":"success","data":["a","b"]}`, `{"status":"success","data":["b","c"]}`, false},
		"no JSON":                    {"x", "y", false},
	} {
		k := comparison{tolerance: 1e-6, until: 50}
		if d := k.answers(answer{status: 200, body: []byte(c.want)}, answer{status: 200, body: []byte(c.got)}); (d == "") != c.same {
			t.Errorf("%s: same is %t, want %t: %s", name, d == "", c.same, d)
		}
	}
	k := comparison{errors: true}
	if k.answers(answer{status: 400, body: []byte("a")}, answer{status: 400, body: []byte("b")}) == "" || k.answers(answer{status: 400}, answer{status: 422}) == "" {
		t.Error("errors that differ are the same")
	}
	if (comparison{}).answers(answer{status: 400, body: []byte("a")}, answer{status: 400, body: []byte("b")}) != "" {
		t.Error("the text of errors counts, though it need not")
	}
	if (comparison{tolerance: 1e-6, relative: true, until: 50}).near("1000000000", "1000000100") == false {
		t.Error("a relative tolerance is not one")
	}
}

// tee is a proxy before two servers that answer what they are told to.
func tee(t *testing.T, change func(*command), answers ...http.HandlerFunc) (*proxy, *prometheus.Registry, http.Handler) {
	t.Helper()
	c := &command{Env: &cli.Env{Log: slog.New(slog.DiscardHandler)}, prefix: "/prometheus", compare: true, tolerance: 1e-6, addTime: true, parallel: 2, timeout: time.Minute}
	var list []string
	for i, h := range answers {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		list = append(list, s.URL)
		if i == 0 {
			c.preferred = strings.TrimPrefix(s.URL, "http://")
		}
	}
	if change != nil {
		change(c)
	}
	backends, err := parseBackends(strings.Join(list, ","), c.preferred)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	p := newProxy(c, backends, reg)
	return p, reg, p
}

func count(t *testing.T, reg *prometheus.Registry, result string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "amphora_querytee_responses_compared_total" && l.GetName() == "result" && l.GetValue() == result {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return w
}

func TestTheClientGetsThePreferredAnswerAndDifferencesAreCounted(t *testing.T) {
	one, two := matrix(`{"metric":{},"values":[[1,"1"]]}`), matrix(`{"metric":{},"values":[[1,"2"]]}`)
	p, reg, h := tee(t, nil, says(200, one), says(200, two))
	if w := get(h, "/prometheus/api/v1/query_range?query=x"); w.Code != 200 || w.Body.String() != one {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.wait()
	if count(t, reg, "fail") != 1 || count(t, reg, "success") != 0 {
		t.Errorf("%g differ, %g are the same", count(t, reg, "fail"), count(t, reg, "success"))
	}
	p, reg, h = tee(t, nil, says(200, one), says(200, one))
	get(h, "/prometheus/api/v1/query_range?query=x")
	p.wait()
	if count(t, reg, "success") != 1 {
		t.Error("equal answers are not counted")
	}
}

func TestWhenThePreferredOneFailsTheOtherAnswers(t *testing.T) {
	p, reg, h := tee(t, nil, says(503, "away"), says(200, "here"))
	if w := get(h, "/prometheus/api/v1/labels"); w.Code != 200 || w.Body.String() != "here" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.wait()
	if count(t, reg, "fail") != 1 {
		t.Error("it is no difference")
	}
	_, _, h = tee(t, nil, says(400, "nonsense"), says(200, "here"))
	if w := get(h, "/prometheus/api/v1/labels"); w.Code != 400 {
		t.Errorf("a refusal of the preferred one is answered %d", w.Code)
	}
}

func TestBothAreAskedForTheSameTime(t *testing.T) {
	got := make(chan string, 4)
	note := func(w http.ResponseWriter, r *http.Request) { got <- r.FormValue("time") }
	p, _, h := tee(t, nil, note, note)
	get(h, "/prometheus/api/v1/query?query=x")
	p.wait()
	if a, b := <-got, <-got; a == "" || a != b {
		t.Errorf("times %q and %q", a, b)
	}
	form := httptest.NewRequest(http.MethodPost, "/prometheus/api/v1/query", strings.NewReader(url.Values{"query": {"x"}}.Encode()))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h.ServeHTTP(httptest.NewRecorder(), form)
	p.wait()
	if a, b := <-got, <-got; a == "" || a != b {
		t.Errorf("times of a form %q and %q", a, b)
	}
}

func TestWhatIsNoQueryGoesToThePreferredOneOrToNobody(t *testing.T) {
	p, _, h := tee(t, nil, says(200, "one"), says(200, "two"))
	if w := get(h, "/prometheus/config/v1/rules"); w.Code != 404 {
		t.Errorf("it is answered %d", w.Code)
	}
	p.wait()
	p, _, h = tee(t, func(c *command) { c.passOn = true }, says(200, "one"), func(http.ResponseWriter, *http.Request) { t.Error("the other is asked") })
	if w := get(h, "/prometheus/config/v1/rules"); w.Body.String() != "one" {
		t.Errorf("it is answered %s", w.Body)
	}
	p.wait()
}

func TestRequestsBeyondTheLimitAreTurnedAway(t *testing.T) {
	hold, in := make(chan struct{}), make(chan struct{}, 2)
	slow := func(http.ResponseWriter, *http.Request) { in <- struct{}{}; <-hold }
	p, _, h := tee(t, func(c *command) { c.parallel = 1 }, slow, slow)
	done := make(chan struct{})
	go func() { defer close(done); get(h, "/prometheus/api/v1/labels") }()
	<-in
	if w := get(h, "/prometheus/api/v1/labels"); w.Code != 503 {
		t.Errorf("the second request is answered %d", w.Code)
	}
	close(hold)
	<-done
	p.wait()
}

func TestTheCommandRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]*command{
		"no URL":                {endpoints: "host", parallel: 1},
		"one for a comparison":  {endpoints: "http://a", preferred: "a", compare: true, parallel: 1},
		"nobody preferred":      {endpoints: "http://a,http://b", compare: true, parallel: 1},
		"an unknown preference": {endpoints: "http://a,http://b", preferred: "c", parallel: 1},
		"a doubtful preference": {endpoints: "http://a:1,http://a:2", preferred: "a", parallel: 1},
		"the same twice":        {endpoints: "http://a,http://a", parallel: 1},
		"nobody to pass on to":  {endpoints: "http://a", passOn: true, parallel: 1},
	} {
		if err := c.run(context.Background()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzAnswersAreCompared(f *testing.F) {
	f.Add(matrix(`{"metric":{"a":"b"},"values":[[1,"1"]],"histograms":[[2,{"count":"1","sum":"1","buckets":[[0,"0","1","1"]]}]]}`), `{"status":"success","data":["a"]}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		k := comparison{tolerance: 1e-6, until: 1e9}
		x, y := answer{status: 200, body: []byte(a)}, answer{status: 200, body: []byte(b)}
		k.answers(x, y)
	})
}
