package querytee

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What is read of a request and of an answer. Larger answers are passed on whole by nobody: they fail.
const (
	requestBytes = 10 << 20
	answerBytes  = 256 << 20
)

// proxy sends what it is asked to all backends.
type proxy struct {
	c        *command
	backends []backend
	client   *http.Client
	places   chan struct{} // one for each request under way
	late     sync.WaitGroup
	now      func() time.Time

	duration *prometheus.HistogramVec
	answers  *prometheus.CounterVec
	compared *prometheus.CounterVec
	refused  prometheus.Counter
}

func newProxy(c *command, backends []backend, reg prometheus.Registerer) *proxy {
	f := promauto.With(reg)
	return &proxy{
		c: c, backends: backends, places: make(chan struct{}, c.parallel), now: time.Now,
		client: &http.Client{
			Timeout:       c.timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_querytee_backend_request_duration_seconds", Help: "How long answers took.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 15)}, []string{"backend", "method", "route", "status_code"}),
		answers:  f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_querytee_responses_total", Help: "Answers that clients were given, by whose they were."}, []string{"backend", "method", "route"}),
		compared: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_querytee_responses_compared_total", Help: "Pairs of answers that were compared: success, fail, or skip if one has none."}, []string{"route", "result"}),
		refused:  f.NewCounter(prometheus.CounterOpts{Name: "amphora_querytee_requests_refused_total", Help: "Requests that were turned away as too many were under way."}),
	}
}

// wait returns when the answers that nobody waits for have come.
func (p *proxy) wait() { p.late.Wait() }

// queries are the paths that are sent to all backends.
var queries = regexp.MustCompile(`^/api/v1/(query|query_range|query_exemplars|labels|series|metadata|label/[^/]+/values|cardinality/[a-z_]+|rules|alerts)$`)

// route is the name of a path for metrics; empty: it is no query.
func (p *proxy) route(path string) string {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(p.c.prefix, "/"))
	if !ok || !queries.MatchString(rest) {
		return ""
	}
	name := strings.ReplaceAll(strings.TrimPrefix(rest, "/"), "/", "_")
	if strings.HasPrefix(name, "api_v1_label_") {
		return "api_v1_label_values"
	}
	return name
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, to := p.route(r.URL.Path), p.backends
	switch {
	case r.URL.Path == "/ready":
		answer{status: http.StatusOK, body: []byte("ready\n")}.write(w)
		return
	case route == "" && !p.c.passOn:
		answer{status: http.StatusNotFound, body: []byte("no query, and others are not passed on\n")}.write(w)
		return
	case route == "":
		route, to = "other", nil
		for _, b := range p.backends {
			if b.preferred {
				to = []backend{b}
			}
		}
	}
	select {
	case p.places <- struct{}{}:
	default:
		p.refused.Inc()
		answer{status: http.StatusServiceUnavailable, body: []byte("too many requests are under way\n")}.write(w)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestBytes))
	if err != nil {
		<-p.places
		answer{status: http.StatusRequestEntityTooLarge, body: []byte("the request is too large, or broke off\n")}.write(w)
		return
	}
	q := &request{method: r.Method, path: r.URL.EscapedPath(), query: r.URL.Query(), header: r.Header.Clone(), body: body, route: route}
	if route == "api_v1_query" && p.c.addTime {
		q.addTime(p.now())
	}
	first := p.ask(r.Context(), q, to)
	p.answers.WithLabelValues(first.backend, r.Method, route).Inc()
	first.write(w)
}

// request is what a client asked.
type request struct {
	method, path, route string
	query               url.Values
	header              http.Header
	body                []byte
}

// addTime gives an instant query the time now, unless it has one.
func (q *request) addTime(now time.Time) {
	at := strconv.FormatFloat(float64(now.UnixMilli())/1000, 'f', 3, 64)
	if q.query.Has("time") {
		return
	}
	if q.method == http.MethodPost && strings.HasPrefix(q.header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		form, err := url.ParseQuery(string(q.body))
		if err == nil && !form.Has("time") {
			form.Set("time", at)
			q.body = []byte(form.Encode())
		}
		return
	}
	q.query.Set("time", at)
}

// answer is that of a backend.
type answer struct {
	backend string
	status  int
	header  http.Header
	body    []byte
	took    time.Duration
	err     error
}

// good says whether a client should have the answer: that it asked for nonsense is one.
func (a answer) good() bool {
	return a.err == nil && a.status < 500 && a.status != http.StatusTooManyRequests
}

func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may be gone
}

// ask sends q to all backends and returns the answer for the client: that of the preferred one if it is good, else
// the first good one, else the first. The others are read to their end afterwards, and compared. The
// place of the request is given back when all have answered.
func (p *proxy) ask(ctx context.Context, q *request, to []backend) answer {
	ctx = context.WithoutCancel(ctx) // the client's end is not that of the comparison; the timeout bounds it
	came := make(chan answer, len(to))
	for _, b := range to {
		p.late.Go(func() { came <- p.send(ctx, q, b) })
	}
	chosen := make(chan answer, 1)
	p.late.Go(func() {
		defer func() { <-p.places }()
		var all []answer
		given := false
		for range to {
			a := <-came
			all = append(all, a)
			if !given && a.good() && (p.c.preferred == "" || p.isPreferred(a.backend)) {
				chosen <- a
				given = true
			}
		}
		if !given {
			chosen <- best(all)
		}
		if p.c.compare && len(all) == 2 {
			p.judge(q, all)
		}
	})
	return <-chosen
}

// best is the first good answer, or the first.
func best(all []answer) answer {
	for _, a := range all {
		if a.good() {
			return a
		}
	}
	return all[0]
}

func (p *proxy) isPreferred(name string) bool {
	for _, b := range p.backends {
		if b.name == name {
			return b.preferred
		}
	}
	return false
}

// send asks one backend. A failure is an answer, too: 502.
func (p *proxy) send(ctx context.Context, q *request, b backend) answer {
	began := time.Now()
	a := p.exchange(ctx, q, b)
	a.backend, a.took = b.name, time.Since(began)
	if a.err != nil {
		p.c.Log.Warn("a backend does not answer", "backend", b.name, "route", q.route, "err", a.err)
		a.status, a.header, a.body = http.StatusBadGateway, nil, []byte("the backend does not answer\n")
	}
	p.duration.WithLabelValues(b.name, q.method, q.route, strconv.Itoa(a.status)).Observe(a.took.Seconds())
	return a
}

func (p *proxy) exchange(ctx context.Context, q *request, b backend) (a answer) {
	u := *b.url
	u.User = nil
	text := strings.TrimSuffix(u.String(), "/") + q.path
	if len(q.query) > 0 {
		text += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, text, bytes.NewReader(q.body))
	if err != nil {
		return answer{err: err}
	}
	for name, values := range q.header {
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Accept-Encoding", "Content-Length":
		default:
			req.Header[name] = values
		}
	}
	if b.url.User != nil {
		password, _ := b.url.User.Password()
		req.SetBasicAuth(b.url.User.Username(), password)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerBytes+1))
	if err == nil && len(body) > answerBytes {
		err = errors.New("the answer is too large")
	}
	header := http.Header{}
	for _, name := range []string{"Content-Type", "Retry-After", "Warning", "Www-Authenticate"} {
		if v := res.Header.Values(name); len(v) > 0 {
			header[name] = v
		}
	}
	return answer{status: res.StatusCode, header: header, body: body, err: err}
}

// judge compares the two answers to q, and counts and logs what came of it.
func (p *proxy) judge(q *request, all []answer) {
	want, got := all[0], all[1]
	if !p.isPreferred(want.backend) {
		want, got = got, want
	}
	result := "success"
	problem := p.c.comparison(p.now()).answers(want, got)
	switch {
	case want.err != nil || got.err != nil:
		result = "skip"
	case problem != "":
		result = "fail"
		p.c.Log.Warn("answers differ", "route", q.route, "path", q.path, "query", q.query.Encode(), "form", string(q.body[:min(len(q.body), 2000)]),
			"tenant", q.header.Get("X-Scope-OrgID"), "preferred", want.backend, "other", got.backend, "difference", problem)
	}
	p.compared.WithLabelValues(q.route, result).Inc()
	if d := got.took - want.took; p.c.slow > 0 && d.Abs() > p.c.slow {
		p.c.Log.Warn("answers took different times", "route", q.route, "query", q.query.Encode(), "preferred", want.took, "other", got.took)
	}
}
