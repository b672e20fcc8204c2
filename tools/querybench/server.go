package main

import (
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
)

// server is one installation that is asked.
type server struct {
	name  string
	proc  *harness.Process
	push  string
	query string // base of the API
	debug string // base of the profiles
	stop  func() error
}

// startOurs starts one process with all of the stack and blocks in a directory.
func (b *bench) startOurs(ctx context.Context) (*server, error) {
	c, err := harness.NewCluster(ctx, harness.Options{
		Dir: filepath.Join(b.dir, "amphora"), Binary: b.binary, Nodes: harness.OneProcess(), Replicas: 1, Files: true,
		Flags: append([]string{
			"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000",
			"-ingester.max-global-series-per-user=10000000", "-ingester.max-global-series-per-metric=10000000",
			"-ingester.out-of-order-time-window=0s",
		}, b.flags...),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	n := c.Nodes()[0]
	return &server{name: "amphora", proc: n.Process, push: n.URL("/api/v1/push"), query: n.URL("/prometheus"), debug: n.URL(""), stop: c.Stop}, nil
}

// startPrometheus starts a Prometheus that receives, as it comes.
func (b *bench) startPrometheus(ctx context.Context) (*server, error) {
	path, err := harness.Tool("prometheus")
	if err != nil {
		return nil, err
	}
	port, err := new(harness.Ports).Free(1)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "prometheus")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of Prometheus: %w", err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of Prometheus: %w", err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port[0])
	p := harness.NewProcess(slog.New(slog.DiscardHandler), harness.Command{
		Name: "prometheus", Path: path, LogFile: filepath.Join(dir, "log"),
		Args: []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + address, "--web.enable-remote-write-receiver"},
	})
	s := &server{name: "prometheus", proc: p, push: "http://" + address + "/api/v1/write", query: "http://" + address, debug: "http://" + address, stop: p.Stop}
	if err := p.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err = harness.Poll(ctx, func(ctx context.Context) error {
		_, err := harness.Get(ctx, "http://"+address+"/-/ready")
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for Prometheus: %w\n%s", err, p.Tail()), p.Stop())
	}
	return s, nil
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
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
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

func (s *server) cpu() (time.Duration, error) { return load.CPUOf(s.proc.PID()) }
