package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// journal writes known values and remembers which were acknowledged, so that afterwards every
// acknowledged sample can be looked for: exactly once, with its value.
type journal struct {
	tenant string
	series int           // per writer
	step   time.Duration // between the samples of a series
	start  int64         // milliseconds; the first sample's time

	urls func() []string // where to push, asked for each try

	rest time.Duration // of whoever audits, between two reads

	mu      sync.Mutex // guards the rest
	writers []*writer
	longest time.Duration // without any acknowledgement
	lastAck time.Time
	took    latencies // of pushes that were acknowledged, from their first try on
}

// writer is one sender; it sends a time only after the one before was answered for good.
type writer struct {
	id     int
	acked  []int64 // times
	failed []int64 // times given up: they may be stored or not
	trying int64   // the time in flight, likewise
}

// value is what series i of writer w has at time t: a function, so that nothing is remembered.
func value(w, i int, t int64) float64 { return float64(w)*1e9 + float64(i)*1e6 + float64(t%1_000_000) }

func newJournal(tenant string, urls func() []string) *journal {
	return &journal{tenant: tenant, series: 100, step: 100 * time.Millisecond, start: time.Now().UnixMilli(), urls: urls, rest: 30 * time.Millisecond, lastAck: time.Now()}
}

// run writes with n writers until ctx ends; each pushes all its series at one time, again and
// again until it is acknowledged or 30 s have passed, then goes on to the next time. Times that passed
// meanwhile are left out, so that what is written is always young.
func (j *journal) run(ctx context.Context, n int) {
	var wg sync.WaitGroup
	for range n {
		j.mu.Lock()
		w := &writer{id: len(j.writers)}
		j.writers = append(j.writers, w)
		j.mu.Unlock()
		wg.Go(func() { j.write(ctx, w) })
	}
	wg.Wait()
}

func (j *journal) write(ctx context.Context, w *writer) {
	next := time.NewTimer(0)
	defer next.Stop()
	step := j.step.Milliseconds()
	for t := j.start; ; t += step {
		// No sample is of a time to come: a reader would not find it yet.
		next.Reset(time.Until(time.UnixMilli(t)))
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if late := time.Now().UnixMilli() - t; late > step {
			t += late / step * step
		}
		body := j.body(w.id, t)
		j.mu.Lock()
		w.trying = t
		j.mu.Unlock()
		// The last push is finished also after ctx ended: its outcome must be known.
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		begin := time.Now()
		err := harness.Poll(try, func(ctx context.Context) error {
			return j.push(ctx, body)
		})
		cancel()
		j.mu.Lock()
		if err == nil {
			now := time.Now()
			j.longest, j.lastAck = max(j.longest, now.Sub(j.lastAck)), now
			j.took.add(now.Sub(begin))
			w.acked = append(w.acked, t)
		} else {
			w.failed = append(w.failed, t)
		}
		j.mu.Unlock()
	}
}

func (j *journal) body(w int, t int64) []byte {
	req := &prompb.WriteRequest{}
	for i := range j.series {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: []prompb.Label{
				{Name: "__name__", Value: "journal"}, {Name: "i", Value: strconv.Itoa(i)},
				{Name: "le", Value: strconv.Itoa(i)}, {Name: "writer", Value: strconv.Itoa(w)},
			},
			Samples: []prompb.Sample{{Value: value(w, i, t), Timestamp: t}},
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return snappy.Encode(nil, raw)
}

func (j *journal) push(ctx context.Context, body []byte) error {
	urls := j.urls()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status, text, err := post(ctx, urls[rand.IntN(len(urls))]+"/api/v1/push", j.tenant, body)
	switch {
	case err != nil:
		return err
	case status/100 == 2:
		return nil
	case status/100 == 4 && status != http.StatusTooManyRequests:
		return harness.Giveup(fmt.Errorf("push refused with %d: %s", status, text))
	}
	return fmt.Errorf("push answered %d: %s", status, text)
}

// post sends a remote write 1.0 body.
func post(ctx context.Context, url, tenant string, body []byte) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if tenant != "" {
		req.Header.Set("X-Scope-OrgID", tenant)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(answer), err
}

// count is the number of acknowledged samples.
func (j *journal) count() (acked, givenUp int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.writers {
		acked += len(w.acked) * j.series
		givenUp += len(w.failed) * j.series
	}
	return acked, givenUp
}

// verifiedAtOnce is about how many samples one query of verify reads, as answers are bounded.
const verifiedAtOnce = 300_000

// verify reads every series raw from the querier at base and compares it with the journal.
func (j *journal) verify(ctx context.Context, t *testing.T, base string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var sum difference
	for _, w := range j.writers {
		if len(w.acked)+len(w.failed) == 0 {
			continue
		}
		sent := map[int64]bool{w.trying: false}
		for _, at := range w.failed {
			sent[at] = false
		}
		for _, at := range w.acked {
			sent[at] = true
		}
		ends := slices.Collect(maps.Keys(sent)) // of what one query reads each
		slices.Sort(ends)
		ends = everyNth(ends, max(1, verifiedAtOnce/j.series))
		for from, k := j.start-1, 0; k <= len(ends); k++ {
			to := max(from+1, time.Now().UnixMilli())
			if k < len(ends) {
				to = ends[k]
			}
			if to <= from {
				continue
			}
			var got map[string][]sample
			within, cancel := context.WithTimeout(ctx, 2*time.Minute) // a machine with much to do may need more than one try
			err := harness.Poll(within, func(ctx context.Context) (err error) {
				got, err = raw(ctx, base, j.tenant, fmt.Sprintf(`journal{writer="%d"}`, w.id), from, to)
				return err
			})
			cancel()
			if err != nil {
				t.Fatalf("read back writer %d: %v", w.id, err)
			}
			part := map[int64]bool{}
			for at, acked := range sent {
				if at > from && at <= to {
					part[at] = acked
				}
			}
			j.compare(w.id, part, got, &sum)
			from = to
		}
	}
	if sum != (difference{}) {
		t.Errorf("of the acknowledged samples %d are missing, %d wrong, %d doubled; %d were never sent", sum.missing, sum.wrong, sum.doubled, sum.strange)
	}
}

// everyNth returns each n-th of times.
func everyNth(times []int64, n int) (out []int64) {
	for k := n - 1; k < len(times); k += n {
		out = append(out, times[k])
	}
	return out
}

// difference is what answers have that they should not have, and lack.
type difference struct{ missing, wrong, doubled, strange int }

// compare adds to sum how got differs from what writer w sent, of which sent says whether it was
// acknowledged.
func (j *journal) compare(w int, sent map[int64]bool, got map[string][]sample, sum *difference) {
	for i := range j.series {
		seen := map[int64]int{}
		for _, s := range got[strconv.Itoa(i)] {
			seen[s.t]++
			if _, known := sent[s.t]; !known {
				sum.strange++
			} else if s.v != value(w, i, s.t) {
				sum.wrong++
			}
		}
		for _, n := range seen {
			if n > 1 {
				sum.doubled++
			}
		}
		for at, acked := range sent {
			if acked && seen[at] == 0 {
				sum.missing++
			}
		}
	}
}

type sample struct {
	t int64
	v float64
}

// UnmarshalJSON reads [seconds,"value"], of which there are millions.
func (s *sample) UnmarshalJSON(b []byte) error {
	at, text, ok := strings.Cut(strings.Trim(string(b), "[]"), ",")
	seconds, err1 := strconv.ParseFloat(strings.TrimSpace(at), 64)
	v, err2 := strconv.ParseFloat(strings.Trim(text, ` "`), 64)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("unexpected sample %s", b)
	}
	s.t, s.v = int64(math.Round(seconds*1000)), v
	return nil
}

// raw reads the samples of selector in (start, end] by label i, by an instant query of a range.
func raw(ctx context.Context, base, tenant, selector string, start, end int64) (map[string][]sample, error) {
	q := url.Values{
		"query": {fmt.Sprintf("%s[%dms]", selector, end-start)},
		"time":  {strconv.FormatFloat(float64(end)/1000, 'f', 3, 64)},
	}
	body, err := harness.Get(ctx, base+"/prometheus/api/v1/query?"+q.Encode(), "X-Scope-OrgID", tenant)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status string
		Data   struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Values []sample
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" || answer.Data.ResultType != "matrix" {
		return nil, errors.New("unexpected answer: " + string(body[:min(len(body), 300)]))
	}
	out := map[string][]sample{}
	for _, r := range answer.Data.Result {
		out[r.Metric["i"]] = append(out[r.Metric["i"]], r.Values...)
	}
	return out, nil
}
