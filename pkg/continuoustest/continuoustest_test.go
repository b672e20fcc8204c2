package continuoustest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// cluster is a server that keeps floats of remote write 1.0, and answers the queries of the test.
type cluster struct {
	*httptest.Server

	mu      sync.Mutex // guards what follows
	samples map[int64]map[string]float64
	refuse  int // the status of writes, if not 0
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{samples: map[int64]map[string]float64{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/push", func(w http.ResponseWriter, r *http.Request) { c.push(t, w, r) })
	mux.HandleFunc("/p/api/v1/query_range", func(w http.ResponseWriter, r *http.Request) {
		c.answer(t, w, r, r.FormValue("start"), r.FormValue("end"), r.FormValue("step"))
	})
	mux.HandleFunc("/p/api/v1/query", func(w http.ResponseWriter, r *http.Request) {
		c.answer(t, w, r, r.FormValue("time"), r.FormValue("time"), "1")
	})
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) push(t *testing.T, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != 0 {
		w.WriteHeader(c.refuse)
		return
	}
	packed, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	raw, err := snappy.Decode(nil, packed)
	if err != nil {
		t.Error(err)
	}
	var req prompb.WriteRequest
	if err := req.Unmarshal(raw); err != nil {
		t.Error(err)
	}
	for _, ts := range req.Timeseries {
		for _, s := range ts.Samples {
			if c.samples[s.Timestamp] == nil {
				c.samples[s.Timestamp] = map[string]float64{}
			}
			c.samples[s.Timestamp][fmt.Sprint(ts.Labels)] = s.Value
		}
	}
}

func (c *cluster) answer(t *testing.T, w http.ResponseWriter, r *http.Request, start, end, step string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n [3]int64
	for i, text := range []string{start, end, step} {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Error(err)
		}
		n[i] = int64(math.Round(f * 1000))
	}
	values := [][2]any{}
	for at := n[0]; at <= n[1]; at += n[2] {
		sum, count := 0.0, 0
		for _, v := range c.samples[at] {
			sum, count = sum+v, count+1
		}
		if strings.HasPrefix(r.FormValue("query"), "count(") {
			sum = float64(count)
		}
		if count > 0 {
			values = append(values, [2]any{float64(at) / 1000, strconv.FormatFloat(sum, 'g', -1, 64)})
		}
	}
	result := []any{}
	if len(values) > 0 {
		result = append(result, map[string]any{"metric": map[string]string{}, "values": values})
	}
	if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "matrix", "result": result}}); err != nil {
		t.Error(err)
	}
}

func newTest(t *testing.T, c *cluster, change func(*Config)) (*Test, *prometheus.Registry) {
	t.Helper()
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.Write.Endpoint, cfg.Read.Endpoint = c.URL, c.URL+"/p"
	cfg.Write.Protocols, cfg.Series.WithHistograms, cfg.Series.Count, cfg.Write.BatchSize = []string{protocolV1}, false, 25, 10
	cfg.Write.Timeout = time.Minute // a busy machine is no failure
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	x, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Reg: reg, Done: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return x, reg
}

// failed is how many checks failed.
func failed(t *testing.T, reg *prometheus.Registry) (out float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "amphora_continuous_test_query_result_checks_failed_total" {
			for _, m := range f.GetMetric() {
				out += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// round does what the service does at now.
func round(t *testing.T, x *Test, now time.Time) (wrote, read error) {
	t.Helper()
	p := x.streams[0]
	if err := x.look(t.Context(), p, now); err != nil {
		t.Fatal(err)
	}
	return x.write(t.Context(), p, now), x.check(t.Context(), p, now)
}

func right(t *testing.T, x *Test, now time.Time) {
	t.Helper()
	if wrote, read := round(t, x, now); wrote != nil || read != nil {
		t.Fatalf("write: %v, read: %v", wrote, read)
	}
}

var begin = time.Unix(1_760_000_000, 0)

func TestAWrongMissingOrAddedSampleIsFound(t *testing.T) {
	for name, spoil := range map[string]func(map[string]float64){
		"wrong": func(m map[string]float64) {
			for k := range m {
				m[k] += 0.5
				return
			}
		},
		"missing": func(m map[string]float64) {
			for k := range m {
				delete(m, k)
				return
			}
		},
		"all missing": func(m map[string]float64) { clear(m) },
		"added":       func(m map[string]float64) { m["stranger"] = 1 },
	} {
		c := newCluster(t)
		x, reg := newTest(t, c, nil)
		now := begin
		for range 10 {
			now = now.Add(20 * time.Second)
			right(t, x, now)
		}
		if n := failed(t, reg); n != 0 {
			t.Fatalf("%s: %g checks fail before anything is spoilt", name, n)
		}
		c.mu.Lock()
		spoil(c.samples[x.streams[0].first.Add(80*time.Second).UnixMilli()])
		c.mu.Unlock()
		if _, err := round(t, x, now.Add(20*time.Second)); err == nil || failed(t, reg) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestARestartGoesOnWhereItWas(t *testing.T) {
	c := newCluster(t)
	x, _ := newTest(t, c, nil)
	now := begin
	for range 10 {
		now = now.Add(20 * time.Second)
		right(t, x, now)
	}
	first := x.streams[0].first

	again, reg := newTest(t, c, nil)
	now = now.Add(10 * time.Minute)
	right(t, again, now)
	if p := again.streams[0]; !p.first.Equal(first) || !p.last.Equal(again.aligned(now)) {
		t.Errorf("it knows of %s to %s, want %s to %s", p.first, p.last, first, now)
	}
	for at := first; !at.After(now); at = at.Add(20 * time.Second) {
		if n := len(c.samples[at.UnixMilli()]); n != 25 {
			t.Errorf("%d series at %s, want 25", n, at)
		}
	}
	if failed(t, reg) != 0 {
		t.Error("checks failed")
	}

	late, _ := newTest(t, c, nil)
	now = now.Add(2 * time.Hour) // too long for samples to be made up for
	right(t, late, now)
	if p := late.streams[0]; !p.first.Equal(p.last) {
		t.Errorf("it knows of %s to %s, want only the newest", p.first, p.last)
	}
}

func TestARestartFindsWhatBecameWrongMeanwhile(t *testing.T) {
	c := newCluster(t)
	x, _ := newTest(t, c, nil)
	now := begin
	for range 10 {
		now = now.Add(20 * time.Second)
		right(t, x, now)
	}
	spoilt := x.streams[0].first.Add(80 * time.Second)
	c.samples[spoilt.UnixMilli()]["stranger"] = 7

	again, reg := newTest(t, c, nil)
	right(t, again, now.Add(20*time.Second))
	if failed(t, reg) != 1 {
		t.Errorf("%g checks failed, want 1", failed(t, reg))
	}
	if p := again.streams[0]; !p.first.Equal(spoilt.Add(20 * time.Second)) {
		t.Errorf("it knows from %s on, want from after what is wrong", p.first)
	}
}

func TestAnInterruptedWriteIsCompleted(t *testing.T) {
	c := newCluster(t)
	x, _ := newTest(t, c, nil)
	right(t, x, begin)
	at := x.streams[0].last.Add(20 * time.Second)
	if _, err := x.client.push(t.Context(), part{x.streams[0].stream, at, 1, 10}); err != nil { // of 25
		t.Fatal(err)
	}
	again, reg := newTest(t, c, nil)
	right(t, again, at.Add(time.Second))
	if n := len(c.samples[at.UnixMilli()]); n != 25 || failed(t, reg) != 0 {
		t.Errorf("%d series, %g failed checks", n, failed(t, reg))
	}
}

func TestAnotherNumberOfSeriesIsNoFault(t *testing.T) {
	c := newCluster(t)
	x, _ := newTest(t, c, nil)
	right(t, x, begin)
	more, reg := newTest(t, c, func(cfg *Config) { cfg.Series.Count = 30 })
	right(t, more, begin.Add(20*time.Second))
	if failed(t, reg) != 0 {
		t.Error("what fewer series added up to counts as wrong")
	}
}

func TestWritesThatFailAreTriedAgainAndThoseRefusedAreNot(t *testing.T) {
	c := newCluster(t)
	x, reg := newTest(t, c, nil)
	right(t, x, begin)
	first := x.streams[0].first
	set := func(status int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuse = status
	}
	now := begin
	for _, status := range []int{503, 429, 500} {
		set(status)
		now = now.Add(20 * time.Second)
		if wrote, read := round(t, x, now); wrote == nil || read != nil {
			t.Errorf("%d: write: %v, read: %v", status, wrote, read)
		}
	}
	set(0)
	right(t, x, now)
	if p := x.streams[0]; !p.first.Equal(first) || !p.last.Equal(x.aligned(now)) {
		t.Errorf("after failures it knows of %s to %s", p.first, p.last)
	}
	set(400)
	now = now.Add(20 * time.Second)
	if wrote, _ := round(t, x, now); wrote == nil {
		t.Error("a refusal is no error")
	}
	set(0)
	now = now.Add(20 * time.Second)
	right(t, x, now)
	if p := x.streams[0]; !p.first.Equal(x.aligned(now)) || failed(t, reg) != 0 {
		t.Errorf("after a refusal it knows from %s on; %g checks failed", p.first, failed(t, reg))
	}
}

func TestAHistogramIsComparedBucketByBucket(t *testing.T) {
	at := time.Unix(1_760_000_020, 0)
	good := wanted(true, at, 3)
	if d := good.differs(wanted(true, at, 3)); d != "" {
		t.Fatal(d)
	}
	for name, spoil := range map[string]func(*value){
		"sum": func(v *value) { v.float *= 1.0001 }, "count": func(v *value) { v.count++ }, "float": func(v *value) { v.buckets = nil },
		"bucket": func(v *value) { v.buckets[2].count++ }, "bound": func(v *value) { v.buckets[2].to = 2 }, "fewer": func(v *value) { v.buckets = v.buckets[1:] },
	} {
		v := good
		v.buckets = slices.Clone(good.buckets)
		spoil(&v)
		if v.differs(good) == "" {
			t.Errorf("%s: no difference is seen", name)
		}
	}
}

func TestAnAnswerWithAHistogramIsRead(t *testing.T) {
	got, err := parseAnswer([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1760000020.5,{"count":"6","sum":"-1.5","buckets":[[1,"-1","-0.5","2"],[0,"0.5","1","4"]]}]]}]}}`))
	if err != nil || len(got) != 1 || got[0].at.UnixMilli() != 1760000020500 {
		t.Fatalf("%v, %v", got, err)
	}
	if d := got[0].v.differs(value{float: -1.5, count: 6, buckets: []bucket{{-1, -0.5, 2}, {0.5, 1, 4}}}); d != "" {
		t.Error(d)
	}
	for _, text := range []string{`{`, `{"data":{"result":[{"value":[1]}]}}`, `{"data":{"result":[{"value":[1,"x"]}]}}`, `{"data":{"result":[{},{}]}}`,
		`{"data":{"result":[{"histogram":[1,{"count":"1","sum":"1","buckets":[[0,"a","1","1"]]}]}]}}`} {
		if _, err := parseAnswer([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestASmokeTestEndsAndSaysWhetherAllWasRight(t *testing.T) {
	c := newCluster(t)
	x, _ := newTest(t, c, func(cfg *Config) { cfg.SmokeTest = true })
	done := make(chan struct{})
	x.deps.Done = func() { close(done) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.run(ctx) }()
	<-done
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	c.refuse = 503
	c.mu.Unlock()
	bad, _ := newTest(t, c, func(cfg *Config) { cfg.SmokeTest = true })
	bad.streams[0].looked = true
	if err := bad.run(t.Context()); err == nil {
		t.Error("a smoke test that cannot write goes well")
	}
}

func TestTheTestNeedsItsEndpoints(t *testing.T) {
	for _, text := range []string{"", "localhost:8080", "ftp://x"} {
		cfg := Config{Write: WriteConfig{Endpoint: text}, Read: ReadConfig{Endpoint: "http://x"}}
		if _, err := New(cfg, Deps{Reg: prometheus.NewRegistry()}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
