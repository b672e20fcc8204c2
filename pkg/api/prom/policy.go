package prom

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Reads says by what a route names the series that it reads, so that it can be held to some of them.
type Reads uint8

// What routes name series by.
const (
	Unselected Reads = iota // they cannot be held to series
	ByQuery                 // the parameter query
	ByMatch                 // match[], which must be there
	ByMatchMay              // match[]; without it all series
	ByMatchers              // matchers in the body, as remote read has them
	NoSeries                // they read none
)

// Hold rewrites a request so that it reads no series but those that p selects, whatever serves it.
// Errors: Denied if it cannot be held to them, and those of the request itself.
func (a *API) Hold(w http.ResponseWriter, r *http.Request, reads Reads, p tenant.Policy) error {
	if len(p) == 0 || reads == NoSeries {
		return nil
	}
	ms, err := a.matchersOf(r.Context(), p)
	if err != nil {
		return err
	}
	switch reads {
	case ByQuery:
		return a.holdForm(w, r, func(form url.Values) error {
			qs, err := a.holdQuery(r.Context(), form.Get("query"), ms)
			form["query"] = []string{qs}
			return err
		})
	case ByMatch, ByMatchMay:
		return a.holdForm(w, r, func(form url.Values) error { return a.holdMatch(r.Context(), form, reads, ms) })
	case ByMatchers:
		return holdRead(w, r, ms)
	}
	return errs.New(errs.Denied, "this call cannot be held to the series that the caller may read")
}

// holdForm lets change change the parameters of r, wherever they stand.
func (a *API) holdForm(w http.ResponseWriter, r *http.Request, change func(url.Values) error) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	form := r.Form
	if err := change(form); err != nil {
		return err
	}
	u := *r.URL
	r.URL = &u
	text := form.Encode()
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method == http.MethodPost && (kind == "multipart/form-data" || kind == "application/x-www-form-urlencoded") {
		u.RawQuery = ""
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		setBody(r, []byte(text))
	} else {
		u.RawQuery = text
	}
	r.RequestURI = u.RequestURI()
	r.Form, r.PostForm, r.MultipartForm = nil, nil, nil
	return nil
}

func setBody(r *http.Request, body []byte) {
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// holdQuery adds ms to every selector of an expression.
func (a *API) holdQuery(ctx context.Context, qs string, ms []*labels.Matcher) (string, error) {
	if err := a.checkSize(ctx, qs); err != nil {
		return "", err
	}
	expr, err := a.b.Engine.ParseExpr(ctx, qs)
	if err != nil {
		return "", paramError("query", err)
	}
	names := slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel })
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			vs.LabelMatchers = append(slices.Clone(vs.LabelMatchers), ms...)
			if names {
				vs.Name = "" // a name may not stand before braces that have another matcher for it
			}
		}
		return nil
	})
	return expr.String(), nil
}

// holdMatch adds ms to every match[].
func (a *API) holdMatch(ctx context.Context, form url.Values, reads Reads, ms []*labels.Matcher) error {
	const name = "match[]"
	sets, err := a.b.Engine.ParseSelectors(ctx, form[name])
	if err != nil {
		return paramError(name, err)
	}
	if len(sets) == 0 && reads == ByMatchMay {
		sets = [][]*labels.Matcher{nil}
	}
	held := []string{}
	for _, set := range sets {
		if len(set) > 0 && !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return errs.New(errs.Invalid, "invalid parameter %q: match[] must contain at least one non-empty matcher", name)
		}
		held = append(held, selectorText(slices.Concat(set, ms)))
	}
	form[name] = held
	return nil
}

func selectorText(ms []*labels.Matcher) string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// holdRead adds ms to every query of a remote read request.
func holdRead(w http.ResponseWriter, r *http.Request, ms []*labels.Matcher) error {
	req, err := readRequest(w, r)
	if err != nil {
		return err
	}
	types := map[labels.MatchType]prompb.LabelMatcher_Type{
		labels.MatchEqual: prompb.LabelMatcher_EQ, labels.MatchNotEqual: prompb.LabelMatcher_NEQ,
		labels.MatchRegexp: prompb.LabelMatcher_RE, labels.MatchNotRegexp: prompb.LabelMatcher_NRE,
	}
	for _, q := range req.Queries {
		for _, m := range ms {
			q.Matchers = append(q.Matchers, &prompb.LabelMatcher{Type: types[m.Type], Name: m.Name, Value: m.Value})
		}
	}
	plain, err := req.Marshal()
	if err != nil {
		return err
	}
	setBody(r, s2.EncodeSnappy(nil, plain))
	return nil
}

// matchersOf turns a policy into matchers that all must match. Errors: Denied for selectors that cannot
// be read, and for alternatives that no matchers express.
func (a *API) matchersOf(ctx context.Context, p tenant.Policy) ([]*labels.Matcher, error) {
	var out []*labels.Matcher
	for _, alternatives := range p {
		sets, err := a.b.Engine.ParseSelectors(ctx, alternatives)
		if err != nil || len(sets) == 0 {
			return nil, errs.New(errs.Denied, "a selector of the label policy cannot be read")
		}
		one := sets[0]
		for _, other := range sets[1:] {
			var ok bool
			if one, ok = union(one, other); !ok {
				return nil, errs.New(errs.Denied, "label policies allow different kinds of series, which no one selector expresses: they must differ in the value of one label only")
			}
		}
		out = append(out, one...)
	}
	return out, nil
}

// union returns matchers of what a or b selects, if there are such: they may differ in one matcher, which
// matches a value or a regular expression.
func union(a, b []*labels.Matcher) ([]*labels.Matcher, bool) {
	if len(a) != len(b) {
		return nil, false
	}
	order := func(x, y *labels.Matcher) int {
		return strings.Compare(x.Name+"\x00"+x.String(), y.Name+"\x00"+y.String())
	}
	a, b = slices.SortedFunc(slices.Values(a), order), slices.SortedFunc(slices.Values(b), order)
	differs := -1
	for i := range a {
		if a[i].String() == b[i].String() {
			continue
		}
		if differs >= 0 || a[i].Name != b[i].Name {
			return nil, false
		}
		differs = i
	}
	if differs < 0 {
		return a, true
	}
	left, ok1 := expression(a[differs])
	right, ok2 := expression(b[differs])
	if !ok1 || !ok2 {
		return nil, false
	}
	m, err := labels.NewMatcher(labels.MatchRegexp, a[differs].Name, left+"|"+right)
	if err != nil {
		return nil, false
	}
	out := slices.Clone(a)
	out[differs] = m
	return out, true
}

// expression returns what m matches as a regular expression.
func expression(m *labels.Matcher) (string, bool) {
	switch m.Type {
	case labels.MatchEqual:
		return regexp.QuoteMeta(m.Value), true
	case labels.MatchRegexp:
		return "(?:" + m.Value + ")", true
	}
	return "", false
}

// namesLookback is how far back the series lie whose names a selection of metadata looks for.
const namesLookback = 24 * time.Hour

// namesOf returns the names of recent series that a match[] selects, nil if there is none.
func (a *API) namesOf(ctx context.Context, r *http.Request) (map[string]bool, error) {
	sets, err := a.matcherSets(r)
	if err != nil || len(sets) == 0 {
		return nil, paramError("match[]", err)
	}
	now := a.b.Now()
	q, err := a.b.Storage.Querier(now.Add(-namesLookback).UnixMilli(), now.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	found := map[string]bool{}
	for _, ms := range sets {
		names, _, err := q.LabelValues(ctx, model.MetricNameLabel, &storage.LabelHints{}, ms...)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			found[n] = true
		}
	}
	return found, nil
}
