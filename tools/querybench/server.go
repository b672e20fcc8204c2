package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

const (
	tenantName = "load"
	startWait  = time.Minute
	askWait    = 2 * time.Minute
	cutWait    = 5 * time.Minute
)

// server is one installation that is asked.
type server struct {
	name  string
	procs []*harness.Process
	push  string
	query string   // base of the API
	debug string   // base of the profiles
	flush string   // where blocks are cut; empty: nowhere
	bases []string // of all processes
	store bool     // it reads object storage
	stop  func() error
	idle  []float64 // the part of a processor that each process uses while nobody asks
}

// services are what answers pushes and queries, without what compacts blocks meanwhile.
const services = "ingester,distributor,store-gateway,query-scheduler,query-frontend,querier"

// startOurs starts one process with all of the stack, or one for each part of it, and blocks in a directory.
func (b *bench) startOurs(ctx context.Context) (*server, error) {
	o := harness.Options{
		Dir: filepath.Join(b.dir, "amphora"), Binary: b.binary, Nodes: harness.OneProcess(), Replicas: 1, Files: true,
		Flags: append([]string{
			"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000",
			"-querier.max-fetched-chunks-per-query=0", // Prometheus has no such limit, and 24 hours of all series are more
			"-ingester.max-global-series-per-user=10000000", "-ingester.max-global-series-per-metric=10000000",
			"-ingester.out-of-order-time-window=0s",
		}, b.flags...),
	}
	if b.blocks {
		o.Nodes = []harness.Spec{{Name: "all", Target: services}}
		o.Flags = append(o.Flags, "-querier.query-ingesters-within=1s", "-blocks-storage.tsdb.retention-period=2s")
	}
	if b.split {
		o.Nodes = nil
		for name := range strings.SplitSeq(services, ",") {
			if !slices.Contains(b.join, name) {
				o.Nodes = append(o.Nodes, harness.Spec{Name: name, Target: name})
			}
		}
		if len(b.join) > 0 {
			o.Nodes = append(o.Nodes, harness.Spec{Name: "joined", Target: strings.Join(b.join, ",")})
		}
	}
	c, err := harness.NewCluster(ctx, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	door := c.Nodes()[0]
	if b.split {
		door, err = c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{
			"-gateway.upstreams=distributor=" + with(c, "distributor").URL("") + ",querier=" + with(c, "query-frontend").URL("")}})
		if err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	s := &server{name: "amphora", push: door.URL("/api/v1/push"), query: door.URL("/prometheus"), debug: c.Nodes()[0].URL(""), store: b.blocks, stop: c.Stop}
	for _, n := range c.Nodes() {
		s.procs = append(s.procs, n.Process)
		s.bases = append(s.bases, n.URL(""))
		if strings.Contains(n.Target, "ingester") {
			s.flush = n.URL("/ingester/flush?wait=true")
		}
	}
	return s, nil
}

// with is the process that runs a service.
func with(c *harness.Cluster, service string) *harness.Node {
	nodes := c.Nodes()
	return nodes[slices.IndexFunc(nodes, func(n *harness.Node) bool { return slices.Contains(strings.Split(n.Target, ","), service) })]
}

// startPrometheus starts a Prometheus that receives remote write, with its own defaults but for how many samples a query may read.
func (b *bench) startPrometheus(ctx context.Context) (*server, error) {
	p, err := harness.StartPrometheus(ctx, slog.New(slog.DiscardHandler), harness.PrometheusOptions{Dir: filepath.Join(b.dir, "prometheus"), Receiver: true})
	if p == nil {
		return nil, err
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	url := "http://" + p.Address
	return &server{name: "prometheus", procs: []*harness.Process{p.Process}, push: url + "/api/v1/write", query: url, debug: url, bases: []string{url}, stop: p.Stop}, nil
}

func (s *server) get(ctx context.Context, path string, form url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.query+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if form == nil {
		req.Method, req.Body = http.MethodGet, nil
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Scope-OrgID", tenantName)
	req.Header.Set("Cache-Control", "no-store") // what is kept of an answer costs nothing to ask for again
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		err = fmt.Errorf("read the answer of %s after %d bytes: %w", s.name, len(body), err)
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.300s", s.name, resp.Status, body)
	}
	return body, err
}

// names returns the names of all metrics.
func (s *server) names(ctx context.Context) ([]string, error) {
	body, err := s.get(ctx, "/api/v1/label/__name__/values", nil)
	if err != nil {
		return nil, err
	}
	var answer struct{ Data []string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("names of %s: %w", s.name, err)
	}
	return answer.Data, nil
}

// profile writes a processor profile of the process while it answers.
func (s *server) profile(ctx context.Context, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.debug+"/debug/pprof/profile?seconds=60", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile %s: %w", s.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	return os.WriteFile(file, body, 0o600)
}

// cpus is the processor time of each process.
func (s *server) cpus() ([]time.Duration, error) {
	out := make([]time.Duration, len(s.procs))
	for i, p := range s.procs {
		var err error
		if out[i], err = load.CPUOf(p.PID()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// cpu is the processor time of all processes.
func (s *server) cpu() (sum time.Duration, err error) {
	all, err := s.cpus()
	for _, d := range all {
		sum += d
	}
	return sum, err
}

// traffic is what is asked of object storage.
type traffic struct{ requests, bytes float64 }

func (t traffic) String() string {
	return fmt.Sprintf("%5.0f %9.1f", t.requests, t.bytes/1e3)
}

// traffic is what queries have asked of object storage so far. A server that has none asks nothing of it.
func (s *server) traffic(ctx context.Context) (sum traffic, err error) {
	if !s.store {
		return sum, nil
	}
	for _, base := range s.bases {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", http.NoBody)
		if err != nil {
			return sum, fmt.Errorf("make a request: %w", err)
		}
		req.Header.Set("Accept-Encoding", "identity") // to compress them is more work than some queries are
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return sum, fmt.Errorf("read metrics of %s: %w", s.name, err)
		}
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			line := lines.Text()
			if !strings.Contains(line, `cause="query"`) && !strings.Contains(line, `cause="index"`) {
				continue
			}
			value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return sum, errors.Join(fmt.Errorf("metric %s: %w", line, err), resp.Body.Close())
			}
			switch {
			case strings.HasPrefix(line, "amphora_objstore_requests_total{"):
				sum.requests += value
			case strings.HasPrefix(line, "amphora_objstore_transferred_bytes_total{"):
				sum.bytes += value
			}
		}
		if err := resp.Body.Close(); err != nil {
			return sum, fmt.Errorf("read metrics of %s: %w", s.name, err)
		}
	}
	return sum, nil
}

const (
	// calmSpan is over how long a server must take less than calmPart of a processor to be calm.
	calmSpan = 2 * time.Second
	calmPart = 0.03
	calmWait = 2 * time.Minute
)

// calm has a server do what is left of the fill, such as collecting garbage, mapping chunks and cutting its
// log, so that no query pays for that: to mark a million series takes several times as long as to ask for some
// of them. It returns what processor time that took.
func (s *server) calm(ctx context.Context) (spent time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, calmWait)
	defer cancel()
	began, err := s.cpu()
	if err != nil {
		return 0, err
	}
	for _, base := range s.bases { // a profile of the heap collects garbage if it is asked to
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/debug/pprof/heap?gc=1", http.NoBody)
		if err != nil {
			return 0, fmt.Errorf("make a request: %w", err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, fmt.Errorf("have %s collect garbage: %w", s.name, err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("have %s collect garbage: %s, %w", s.name, resp.Status, err)
		}
	}
	for last := began; err == nil; {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is busy although nobody asks: %w", s.name, ctx.Err())
		case <-time.After(calmSpan):
		}
		var now time.Duration
		if now, err = s.cpu(); err == nil && now-last < time.Duration(calmPart*float64(calmSpan)) {
			return now - began, nil
		}
		last = now
	}
	return 0, err
}

// anon is the memory of their own of all processes.
func (s *server) anon() (sum int64, err error) {
	for _, p := range s.procs {
		n, err := load.AnonOf(p.PID())
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// cut has the ingester make blocks of what it has, and waits until queries see them: what want answers q, and
// the names of all metrics, which the blocks are asked for too.
func (s *server) cut(ctx context.Context, q query, want *server) error {
	if s.flush == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cutWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.flush, http.NoBody)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("cut blocks: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("cut blocks: %s", resp.Status)
	}
	theirs, err := want.get(ctx, q.path, q.form)
	if err != nil {
		return err
	}
	if err := harness.Poll(ctx, func(ctx context.Context) error {
		ours, err := s.get(ctx, q.path, q.form)
		if err != nil {
			return err
		}
		return differ(q, ours, theirs)
	}); err != nil {
		return err
	}
	wantNames, err := want.names(ctx)
	if err != nil {
		return err
	}
	names, err := s.names(ctx)
	if err == nil && !slices.Equal(names, wantNames) {
		err = fmt.Errorf("%d names of metrics are in blocks, %d in Prometheus", len(names), len(wantNames))
	}
	return err
}
