package continuoustest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// answerBytes bounds what is read of an answer: 11000 histograms need a few MiB.
const answerBytes = 32 << 20

// client calls what is tested.
type client struct {
	cfg         Config
	write, read *url.URL
	http        *http.Client
}

// push sends one request. status is 0 if there was no answer.
func (c *client) push(ctx context.Context, p part) (status int, err error) {
	body, err := p.encode()
	if err != nil {
		return 0, errs.New(errs.Internal, "encode a write: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Write.Timeout)
	defer cancel()
	path, header := "/api/v1/push", http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}, "X-Prometheus-Remote-Write-Version": {"0.1.0"}}
	switch p.protocol {
	case protocolV2:
		header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	case protocolOTLP:
		path, header = "/otlp/v1/metrics", http.Header{"Content-Type": {"application/x-protobuf"}}
	}
	if header.Get("Content-Encoding") == "snappy" {
		body = snappy.Encode(nil, body)
	}
	answer, status, err := c.call(ctx, c.write, path, header, body)
	if err == nil && p.protocol == protocolOTLP {
		err = refused(answer)
	}
	return status, err
}

// refused says what a 200 of OTLP left out.
func refused(answer []byte) error {
	res := pmetricotlp.NewExportResponse()
	if err := res.UnmarshalProto(answer); err != nil {
		return errs.New(errs.Internal, "read the answer to a write: %w", err)
	}
	if n := res.PartialSuccess().RejectedDataPoints(); n > 0 {
		return errs.New(errs.Invalid, "%d data points were refused: %s", n, res.PartialSuccess().ErrorMessage())
	}
	return nil
}

// point is the value of a time.
type point struct {
	at time.Time
	v  value
}

// rangeQuery asks for the values from start to end, both of which are answered. fresh goes past the results cache.
func (c *client) rangeQuery(ctx context.Context, expr string, w window, fresh bool) ([]point, error) {
	return c.ask(ctx, "/api/v1/query_range", url.Values{"query": {expr}, "start": {seconds(w.from)}, "end": {seconds(w.to)}, "step": {strconv.FormatFloat(w.step.Seconds(), 'f', -1, 64)}}, fresh)
}

// instantQuery asks for the value at one time; there may be none.
func (c *client) instantQuery(ctx context.Context, expr string, at time.Time, fresh bool) ([]point, error) {
	return c.ask(ctx, "/api/v1/query", url.Values{"query": {expr}, "time": {seconds(at)}}, fresh)
}

func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

func (c *client) ask(ctx context.Context, path string, form url.Values, fresh bool) ([]point, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Read.Timeout)
	defer cancel()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	if fresh {
		header.Set("Cache-Control", "no-store")
	}
	body, _, err := c.call(ctx, c.read, path, header, []byte(form.Encode()))
	if err != nil {
		return nil, err
	}
	return parseAnswer(body)
}

// call sends one request and returns the answer to one that went well. status is 0 if there was none.
func (c *client) call(ctx context.Context, base *url.URL, path string, header http.Header, body []byte) (answer []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base.String(), "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, errs.New(errs.Internal, "make a request: %w", err)
	}
	req.Header = header
	req.Header.Set("User-Agent", "amphora-continuous-test")
	k := c.cfg.Client
	if k.BearerToken != "" {
		req.Header.Set("Authorization", "Bearer "+k.BearerToken.Reveal())
	} else if k.BasicAuthUser != "" {
		req.SetBasicAuth(k.BasicAuthUser, k.BasicAuthPassword.Reveal())
	}
	// Credentials may say which tenant it is; those good for several need the name, too.
	if k.BearerToken == "" && k.BasicAuthUser == "" || k.TenantID != defaultTenant {
		req.Header.Set("X-Scope-OrgID", k.TenantID)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, 0, errs.New(errs.Unavailable, "call %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, answerBytes))
	if err != nil {
		return nil, res.StatusCode, errs.New(errs.Unavailable, "read the answer of %s: %w", path, err)
	}
	if res.StatusCode/100 != 2 {
		return nil, res.StatusCode, errs.New(errs.Unavailable, "%s answered %d: %.300s", path, res.StatusCode, answer)
	}
	return answer, res.StatusCode, nil
}

// parseAnswer reads an answer with at most one series. Errors: Invalid.
func parseAnswer(body []byte) ([]point, error) {
	var a struct {
		Data struct {
			Result []struct {
				Value      json.RawMessage   `json:"value"`
				Histogram  json.RawMessage   `json:"histogram"`
				Values     []json.RawMessage `json:"values"`
				Histograms []json.RawMessage `json:"histograms"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, errs.New(errs.Invalid, "read the answer to a query: %w", err)
	}
	if len(a.Data.Result) > 1 {
		return nil, errs.New(errs.Invalid, "the answer has %d series instead of one", len(a.Data.Result))
	}
	var out []point
	add := func(list ...json.RawMessage) error {
		for _, raw := range list {
			if raw == nil {
				continue
			}
			p, err := parsePoint(raw)
			if err != nil {
				return errs.New(errs.Invalid, "read the answer to a query: %w", err)
			}
			out = append(out, p)
		}
		return nil
	}
	for _, r := range a.Data.Result {
		for _, list := range [][]json.RawMessage{{r.Value}, {r.Histogram}, r.Values, r.Histograms} {
			if err := add(list...); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// parsePoint reads a time with what belongs to it: a number in quotes, or a histogram.
func parsePoint(raw json.RawMessage) (point, error) {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return point{}, err
	}
	var at float64
	if err := json.Unmarshal(pair[0], &at); err != nil {
		return point{}, err
	}
	p := point{at: time.UnixMilli(int64(math.Round(at * 1000)))}
	var text string
	if json.Unmarshal(pair[1], &text) == nil {
		f, err := strconv.ParseFloat(text, 64)
		p.v.float = f
		return p, err
	}
	var h struct {
		Count   float64              `json:"count,string"`
		Sum     float64              `json:"sum,string"`
		Buckets [][4]json.RawMessage `json:"buckets"` // which bounds are in, from, to, count
	}
	if err := json.Unmarshal(pair[1], &h); err != nil {
		return point{}, err
	}
	p.v = value{float: h.Sum, count: h.Count, buckets: []bucket{}}
	for _, b := range h.Buckets {
		var f [3]float64
		for i, raw := range b[1:] {
			if err := json.Unmarshal(raw, &text); err != nil {
				return point{}, err
			}
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return point{}, fmt.Errorf("bound or count %q of a bucket: %w", text, err)
			}
			f[i] = n
		}
		p.v.buckets = append(p.v.buckets, bucket{f[0], f[1], f[2]})
	}
	return p, nil
}
