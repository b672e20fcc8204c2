package frontend

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

const (
	// maxFormBytes bounds the body of a request that is looked up in the cache.
	maxFormBytes = 10 << 20
	// lookupStep is to what multiples start and end are rounded: of moving windows no two are the same,
	// and blocks are not cut any finer.
	lookupStep = 2 * time.Hour
)

// Respond has a querier answer a request of the read API that is no query, or answers it as a moment ago
// if the tenants allow that. ctx is that of the request. Errors: those of the querier.
func (f *Frontend) Respond(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	if work.WantsTiming(r.Header) && strings.Contains(r.URL.Path, "/api/v1/cardinality/") {
		w = &timed{ResponseWriter: w, now: f.deps.Now, begin: f.deps.Now()}
	}
	ids, err := tenant.Many(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(context.Canceled)
	id := f.running.add(Running{Tenants: ids, Class: work.ClassOf(ctx).String(), Query: asksFor(r), Since: f.deps.Now()}, nil, stop)
	defer f.running.remove(id)
	ask := func(w http.ResponseWriter) error {
		err := f.deps.Run.Run(ctx, &work.Work{Class: work.ClassOf(ctx), Request: r, Writer: w})
		if err != nil {
			return ended(ctx, err, context.DeadlineExceeded)
		}
		return nil
	}
	kind, ttl := f.lookupOf(ctx, r)
	if ttl <= 0 {
		return ask(w)
	}
	form, err := formOf(r)
	if err != nil {
		return err
	}
	q := query{f: f, tenants: ids}
	encodings := strings.Join(r.Header.Values("Accept-Encoding"), ",")
	start, end := rounded(form, "start", false), rounded(form, "end", true)
	key := results.Key(kind, q.tenancy(), r.URL.Path, encodings, form.Encode())
	if p := f.response(ctx, key, start, end); p != nil {
		f.deps.Results.Asked(kind, 1)
		p.write(w)
		return nil
	}
	f.deps.Results.Asked(kind, 0)
	keep := &keeper{ResponseWriter: w, status: http.StatusOK, begun: f.deps.Now()}
	if err := ask(keep); err != nil {
		return err
	}
	if keep.status == http.StatusOK && !keep.large {
		p := results.Response{At: keep.begun.UnixMilli(), Type: w.Header().Get("Content-Type"), Encoding: w.Header().Get("Content-Encoding"), Body: keep.body.Bytes()}
		f.deps.Results.Set(key, p.Encode(), ttl)
	}
	return nil
}

// asksFor is what a request asks for, in a list of what is under way. Its body can be read again afterwards.
func asksFor(r *http.Request) string {
	form := r.URL.Query()
	if r.Body != nil && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		// What goes wrong goes wrong again where the body is needed.
		head, _ := io.ReadAll(io.LimitReader(r.Body, mostListedText))
		r.Body = readCloser{io.MultiReader(bytes.NewReader(head), r.Body), r.Body}
		values, _ := url.ParseQuery(string(head))
		for k, vs := range values {
			form[k] = append(vs, form[k]...)
		}
	}
	text := r.Method + " " + r.URL.Path
	if len(form) == 0 {
		return text
	}
	parameters, err := url.QueryUnescape(form.Encode())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return text + "?" + parameters
}

type readCloser struct {
	io.Reader
	io.Closer
}

// lookupOf says what a request is for the cache, and how long its answer is kept.
func (f *Frontend) lookupOf(ctx context.Context, r *http.Request) (results.Kind, time.Duration) {
	kind, key := results.Labels, limits.ResultsCacheTTLForLabels
	path := r.URL.Path
	switch {
	case f.deps.Results == nil || withoutCache(ctx) || r.Method != http.MethodGet && r.Method != http.MethodPost:
		return kind, 0
	case strings.HasSuffix(path, "/cardinality/label_names"), strings.HasSuffix(path, "/cardinality/label_values"):
		kind, key = results.Cardinality, limits.ResultsCacheTTLForCardinality
	case strings.HasSuffix(path, "/api/v1/labels"), strings.HasSuffix(path, "/api/v1/series"), strings.Contains(path, "/api/v1/label/") && strings.HasSuffix(path, "/values"):
	default:
		return kind, 0
	}
	ids, err := tenant.Many(ctx)
	if err != nil || len(ids) == 0 {
		return kind, 0
	}
	ttl := time.Duration(math.MaxInt64)
	for _, id := range ids {
		ttl = min(ttl, key.Of(f.deps.Limits(id)))
	}
	return kind, ttl
}

// formOf reads the parameters of a request, whose body can be read again afterwards, as what serves it
// does: those of a body stand before those of the URL, and of most the first counts.
func formOf(r *http.Request) (url.Values, error) {
	form := url.Values{}
	add := func(values url.Values) {
		for k, vs := range values {
			form[k] = append(form[k], vs...)
		}
	}
	var raw []string
	if r.Body != nil && r.Method == http.MethodPost {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxFormBytes+1))
		if err != nil {
			return nil, errs.New(errs.Invalid, "read the body: %w", err)
		}
		if len(body) > maxFormBytes {
			return nil, errs.New(errs.BodyTooLarge, "form is larger than %d bytes", maxFormBytes)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		// What is no form has a key of its own.
		values, err := url.ParseQuery(string(body))
		if err != nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			raw = []string{r.Header.Get("Content-Type"), string(body)}
		} else {
			add(values)
		}
	}
	add(r.URL.Query())
	for k, vs := range form {
		if listed(k) {
			slices.Sort(vs)
		} else {
			form[k] = vs[:1]
		}
	}
	delete(form, rawBody)
	if raw != nil {
		form[rawBody] = raw
	}
	return form, nil
}

// rawBody is the key of a body that is no form.
const rawBody = "\x00body"

// listed says whether all values of a parameter count.
func listed(name string) bool { return strings.HasSuffix(name, "[]") }

// rounded rounds the time of a parameter, and returns it in milliseconds; without one, the end of time.
func rounded(form url.Values, name string, up bool) int64 {
	const step = int64(lookupStep / time.Millisecond)
	var at int64
	switch s := form.Get(name); {
	case s == "":
		if up {
			return math.MaxInt64
		}
		return math.MinInt64
	default:
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1e12 {
			at = int64(f * 1000)
		} else if t, err := time.Parse(time.RFC3339Nano, s); err == nil && t.Year() > 0 && t.Year() < 9999 {
			at = t.UnixMilli()
		} else if up {
			return math.MaxInt64 // as it is
		} else {
			return math.MinInt64
		}
	}
	at = floorDiv(at, step) * step
	if up {
		at += step
	}
	form.Set(name, strconv.FormatInt(at, 10))
	return at
}

// response returns a kept answer about the time from start to end, if it holds.
func (f *Frontend) response(ctx context.Context, key string, start, end int64) *kept200 {
	item, ok := f.deps.Results.Get(ctx, key)
	if !ok {
		return nil
	}
	p, err := results.DecodeResponse(item)
	if err != nil {
		f.deps.Results.Damaged()
		return nil
	}
	log, err := f.deps.Changes(ctx)
	if err != nil {
		f.deps.Results.Skip(results.ChangesGone)
		return nil
	}
	e := results.Extent{Start: start, End: end, At: p.At}
	rules := results.Rules{Log: log, Skew: f.deps.Skew.Milliseconds()}
	if s := rules.Holds(&e, results.Grid{Step: 1}); len(s) != 1 || s[0] != (results.Span{Start: start, End: end}) {
		f.deps.Results.Outdated(1)
		return nil
	}
	return (*kept200)(p)
}

// kept200 is an answer that is given again.
type kept200 results.Response

func (p *kept200) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", p.Type)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	if p.Encoding != "" {
		h.Set("Content-Encoding", p.Encoding)
	}
	h.Set("Content-Length", strconv.Itoa(len(p.Body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(p.Body) // the client is gone if this fails
}

// keeper passes an answer on and keeps a copy.
type keeper struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
	large  bool
	begun  time.Time
}

// mostCopied bounds the copy of an answer.
const mostCopied = 4 << 20

// WriteHeader implements http.ResponseWriter.
func (k *keeper) WriteHeader(status int) {
	k.status = status
	k.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.ResponseWriter.Write(b)
	if k.large = k.large || err != nil || k.body.Len()+n > mostCopied; k.large {
		k.body.Reset()
	} else {
		k.body.Write(b[:n])
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }

// timed is an answer that says how long it took until it began, before what its querier says of that.
type timed struct {
	http.ResponseWriter
	now   func() time.Time
	begin time.Time
	told  bool
}

// WriteHeader implements http.ResponseWriter.
func (t *timed) WriteHeader(status int) {
	if h := t.Header(); !t.told {
		t.told = true
		h.Set("Server-Timing", strings.Join(append([]string{responseTime(t.now().Sub(t.begin))}, h.Values("Server-Timing")...), ", "))
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *timed) Write(b []byte) (int, error) {
	if !t.told {
		t.WriteHeader(http.StatusOK)
	}
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *timed) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// responseTime is what a request took, as an entry of Server-Timing.
func responseTime(d time.Duration) string {
	return "response_time;dur=" + strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 3, 64)
}
