package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/backoff"
	"github.com/grafana/dskit/user"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Queries evaluates expressions by the API of a Prometheus, such as a query-frontend.
type Queries struct {
	url    string
	client *http.Client
}

// maxResultBytes bounds one answer.
const maxResultBytes = 64 << 20

// NewQueries returns what evaluates at address: a URL up to /api/v1, or a host with a port, which then
// has the API under /prometheus. The prefix dns:/// means nothing. Requests go through by; nil: Go's own.
// Errors: Invalid.
func NewQueries(address string, timeout time.Duration, by http.RoundTripper) (*Queries, error) {
	address = strings.TrimPrefix(address, "dns:///")
	if !strings.Contains(address, "://") {
		address = "http://" + address + "/prometheus"
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errs.New(errs.Invalid, "%q is no address with http or https and a host", address)
	}
	return &Queries{url: strings.TrimSuffix(u.String(), "/") + "/api/v1/query", client: &http.Client{Timeout: timeout, Transport: by}}, nil
}

// queryAnswer is what the API answers.
type queryAnswer struct {
	Status, ErrorType, Error string
	Data                     struct {
		ResultType string
		Result     json.RawMessage
	}
}

// Instant evaluates text at a time, for the tenants of ctx. What the API cannot do now is tried again a
// few times. Errors have the kinds that the API tells. Native histograms are Unprocessable from a
// server that cannot tell them exactly.
func (q *Queries) Instant(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	b := backoff.New(ctx, backoff.Config{MinBackoff: 100 * time.Millisecond, MaxBackoff: 2 * time.Second, MaxRetries: 3})
	var err error
	for b.Ongoing() {
		var v promql.Vector
		if v, err = q.once(ctx, text, at); err == nil || !again(err) {
			return v, err
		}
		b.Wait()
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// again says whether the API may answer what it did not answer now.
func again(err error) bool {
	kind := errs.KindOf(err)
	return kind == errs.Unavailable || kind == errs.RateLimited
}

func (q *Queries) once(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	form := url.Values{"query": {text}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.url, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", work.ExactType+", application/json;q=0.5")
	req.Header.Set(tenant.ClassHeader, work.ClassOf(ctx).String())
	if err := user.InjectOrgIDIntoHTTPRequest(ctx, req); err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	res, err := q.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	body, err := io.ReadAll(io.LimitReader(res.Body, maxResultBytes+1))
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	if len(body) > maxResultBytes {
		return nil, errs.New(errs.TooLarge, "the answer is larger than %d bytes", maxResultBytes)
	}
	if res.Header.Get("Content-Type") == work.ExactType {
		return decodeExact(body)
	}
	return decodeAnswer(res.StatusCode, body)
}

// decodeExact reads an answer that tells everything.
func decodeExact(body []byte) (promql.Vector, error) {
	v, err := work.ReadExact(body)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case promql.Vector:
		return v, nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	}
	return nil, errNoVector()
}

func errNoVector() error { return errors.New("rule result is not a vector or scalar") }

// decodeAnswer reads the answer of the query API.
func decodeAnswer(status int, body []byte) (promql.Vector, error) {
	var a queryAnswer
	if err := json.Unmarshal(body, &a); err != nil || a.Status != "success" {
		what := a.Error
		if what == "" {
			what = fmt.Sprintf("status %d: %.200s", status, body)
		}
		return nil, errs.New(kindOfStatus(status), "%s", what)
	}
	switch a.Data.ResultType {
	case "scalar":
		var s model.Scalar
		if err := json.Unmarshal(a.Data.Result, &s); err != nil {
			return nil, errs.New(errs.Internal, "read the answer: %w", err)
		}
		return promql.Vector{{T: int64(s.Timestamp), F: float64(s.Value), Metric: labels.EmptyLabels()}}, nil
	case "vector":
		var v model.Vector
		if err := json.Unmarshal(a.Data.Result, &v); err != nil {
			return nil, errs.New(errs.Internal, "read the answer: %w", err)
		}
		out := make(promql.Vector, 0, len(v))
		for _, s := range v {
			if s.Histogram != nil {
				return nil, errs.New(errs.Unprocessable, "the result has native histograms, which the server of ruler.query_frontend.address does not tell exactly")
			}
			b := labels.NewScratchBuilder(len(s.Metric))
			for name, value := range s.Metric {
				b.Add(string(name), string(value))
			}
			b.Sort()
			out = append(out, promql.Sample{T: int64(s.Timestamp), F: float64(s.Value), Metric: b.Labels()})
		}
		return out, nil
	}
	return nil, errNoVector()
}

// kindOfStatus is the kind of an error of the API.
func kindOfStatus(status int) errs.Kind {
	switch {
	case status == http.StatusUnprocessableEntity:
		return errs.Unprocessable
	case status == http.StatusTooManyRequests:
		return errs.RateLimited // the tenant asks for more than it may
	case status >= 500:
		return errs.Unavailable
	case status >= 400:
		return errs.Invalid
	}
	return errs.Internal
}
