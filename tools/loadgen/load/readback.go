package load

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
)

// ErrNotThere is in the chain of errors of Check about samples that are missing.
var ErrNotThere = errors.New("not all that was acknowledged is there")

// Found is what a server has of a load.
type Found struct {
	Series, Samples int
}

// ReadBack counts, through the query API below base, the series and samples of l that the server
// has. One query covers one namespace of one tenant, so that its answer stays small.
func (l *Load) ReadBack(ctx context.Context, base string, header http.Header) (Found, error) {
	first, last := l.Times()
	window := last.Sub(first) + time.Second
	targets := (l.o.Series + seriesPerTarget - 1) / seriesPerTarget
	var sum Found
	for t := range max(1, l.o.Tenants) {
		for ns := range min(Namespaces, targets) {
			expr := fmt.Sprintf("{namespace=%q}[%dms]", Namespace(ns), window.Milliseconds())
			f, err := count(ctx, base, expr, last, withTenant(header, l.o.TenantName(t)))
			if err != nil {
				return sum, err
			}
			sum.Series += f.Series
			sum.Samples += f.Samples
		}
	}
	return sum, nil
}

// Check compares what the server has with what it acknowledged. Errors: ErrNotThere, if refused is 0
// and anything is missing or too much.
func (l *Load) Check(f Found, r Report) error {
	if r.Refused == 0 && (f.Series != l.DistinctSeries() || f.Samples != r.Acknowledged) {
		return fmt.Errorf("%w: found %d series and %d samples, sent %d series and %d samples were acknowledged",
			ErrNotThere, f.Series, f.Samples, l.DistinctSeries(), r.Acknowledged)
	}
	return nil
}

func withTenant(h http.Header, tenant string) http.Header {
	out := http.Header{}
	for k, v := range h {
		out[http.CanonicalHeaderKey(k)] = v
	}
	out.Set("X-Scope-OrgID", tenant)
	return out
}

// mostAnswerBytes bounds an answer: a namespace of a million series takes some 20 MB.
const mostAnswerBytes = 1 << 30

// count counts what the range selector expr finds.
func count(ctx context.Context, base, expr string, at time.Time, header http.Header) (Found, error) {
	form := url.Values{"query": {expr}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/query", strings.NewReader(form.Encode()))
	if err != nil {
		return Found{}, fmt.Errorf("ask %s: %w", base, err)
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Found{}, fmt.Errorf("ask for %s: %w", expr, err)
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, mostAnswerBytes)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, mostAnswer)) // the status says enough
		return Found{}, fmt.Errorf("ask for %s: status %d: %s", expr, resp.StatusCode, text)
	}
	var answer struct {
		Data struct {
			Result []struct {
				Values     []json.RawMessage `json:"values"`
				Histograms []json.RawMessage `json:"histograms"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return Found{}, fmt.Errorf("answer to %s: %w", expr, err)
	}
	f := Found{Series: len(answer.Data.Result)}
	for _, s := range answer.Data.Result {
		f.Samples += len(s.Values) + len(s.Histograms)
	}
	return f, nil
}
