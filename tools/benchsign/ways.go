package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

const (
	keyID  = "AKIDBENCH001"
	secret = "bench-secret-of-thirty-characters"
	// root may do everything, as reading profiles of the process.
	identities = "accounts: [{id: \"000000000000\", root_keys: [{id: " + keyID + ", secret: " + secret + "}]}]\n"
	startWait  = time.Minute
)

// way is how a client says who it is.
type way struct {
	name string
	node *harness.Node
	sign func(*http.Request, []byte) error

	cpu       time.Duration
	latencies []time.Duration
	profiles  []string // files
}

// start starts a process that asks who calls, and one that does not. stop is never nil.
func (b *bench) start(ctx context.Context) (ways []*way, stop func() error, err error) {
	file := filepath.Join(b.dir, "identities.yaml")
	if err := os.WriteFile(file, []byte(identities), 0o600); err != nil {
		return nil, func() error { return nil }, fmt.Errorf("write identities: %w", err)
	}
	var clusters []*harness.Cluster
	stop = func() error {
		var all error
		for _, c := range clusters {
			all = errors.Join(all, c.Stop())
		}
		return all
	}
	flags := []string{"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000"}
	for name, more := range map[string][]string{"open": nil, "guarded": {"-auth.enabled", "-auth.identity-file=" + file}} {
		c, err := harness.NewCluster(ctx, harness.Options{Dir: filepath.Join(b.dir, name), Binary: b.binary, Nodes: harness.OneProcess(), Replicas: 1, Files: true,
			Flags: slices.Concat(flags, more)})
		if err != nil {
			return nil, stop, err
		}
		clusters = append(clusters, c)
		waiting, cancel := context.WithTimeout(ctx, startWait)
		err = c.WaitReady(waiting)
		cancel()
		if err != nil {
			return nil, stop, err
		}
		n := c.Nodes()[0]
		if name == "open" {
			ways = append(ways, &way{name: "nobody asks", node: n, sign: func(*http.Request, []byte) error { return nil }})
			continue
		}
		ways = append(ways, &way{name: "password", node: n, sign: func(r *http.Request, _ []byte) error { r.SetBasicAuth(keyID, secret); return nil }},
			&way{name: "signed", node: n, sign: signed})
	}
	slices.SortFunc(ways, func(a, b *way) int { return strings.Compare(a.name, b.name) })
	return ways, stop, nil
}

func signed(r *http.Request, body []byte) error {
	return sigv4.Signer{AccessKey: keyID, Secret: secret, Region: "us-east-1", Service: "aps"}.Sign(r, body, time.Now())
}

// take pushes one way for a turn, and counts it if it is measured.
func (b *bench) take(ctx context.Context, w *way, measured bool) error {
	before, err := load.CPUOf(w.node.PID())
	if err != nil {
		return err
	}
	until := time.Now().Add(b.turn)
	var wg sync.WaitGroup
	took, failed := make([][]time.Duration, b.clients), make([]error, b.clients)
	first := b.pushed
	b.pushed += 1_000_000
	for i := range b.clients {
		wg.Go(func() { took[i], failed[i] = b.push(ctx, w, i, first, until) })
	}
	var profile string
	if measured && w.name == "signed" {
		wg.Go(func() { profile, err = b.profile(ctx, w) })
	}
	wg.Wait()
	if err := errors.Join(append(failed, err)...); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	after, err := load.CPUOf(w.node.PID())
	if err != nil || !measured {
		return err
	}
	w.cpu += after - before
	for _, l := range took {
		w.latencies = append(w.latencies, l...)
	}
	if profile != "" {
		w.profiles = append(w.profiles, profile)
	}
	return nil
}

// push sends one client's pushes, one after the other.
func (b *bench) push(ctx context.Context, w *way, client, first int, until time.Time) (took []time.Duration, err error) {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	begin := time.Now().Add(-time.Hour).UnixMilli()
	for n := 0; time.Now().Before(until); n++ {
		body, err := b.body(client, begin+int64(n))
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.node.URL("/api/v1/push"), bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		for k, v := range map[string]string{"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Scope-OrgID": fmt.Sprint("bench-", first)} {
			r.Header.Set(k, v)
		}
		if err := w.sign(r, body); err != nil {
			return nil, err
		}
		began := time.Now()
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("push: %d %s %w", resp.StatusCode, text, err)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// body is a push of one sample of each series of a client.
func (b *bench) body(client int, at int64) ([]byte, error) {
	all := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, b.samples)}
	for i := range all.Timeseries {
		all.Timeseries[i] = prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at, Value: float64(at % 1000)}}, Labels: []prompb.Label{
			{Name: "__name__", Value: "bench_requests_total"}, {Name: "client", Value: strconv.Itoa(client)}, {Name: "cluster", Value: "eu-west-1"}, {Name: "code", Value: "200"},
			{Name: "instance", Value: "10.0.0." + strconv.Itoa(i%250) + ":9090"}, {Name: "job", Value: "api-server"}, {Name: "path", Value: "/api/v1/things/" + strconv.Itoa(i)}, {Name: "pod", Value: "api-" + strconv.Itoa(i/10)},
		}}
	}
	raw, err := all.Marshal()
	return snappy.Encode(nil, raw), err
}

// profile has the process profile itself for the time of a turn, and returns the file.
func (b *bench) profile(ctx context.Context, w *way) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.node.URL("/debug/pprof/profile?seconds="+strconv.Itoa(int(b.turn.Seconds()))), http.NoBody)
	if err != nil {
		return "", err
	}
	if err := signed(r, nil); err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("profile: %d %.200s %w", resp.StatusCode, data, err)
	}
	file := filepath.Join(b.dir, fmt.Sprintf("profile-%d", len(w.profiles)))
	return file, os.WriteFile(file, data, 0o600)
}

// inProfile is a line of what the profiler tells: the last figures are of a function and what it calls.
var inProfile = regexp.MustCompile(`([0-9.]+)%\s+github\.com/amphora-metrics/amphora/pkg/gateway\.\(\*Gateway\)\.(checkSignature|serve)$`)

// report tells the figures, and fails if the signature takes too much.
func (b *bench) report(ctx context.Context, ways []*way) error {
	fmt.Fprintf(b.out, "%d clients, pushes of %d samples, %d turns of %v each\n", b.clients, b.samples, b.turns, b.turn)
	fmt.Fprintf(b.out, "%-12s %8s %14s %10s %10s\n", "", "pushes", "CPU of a push", "p50", "p99")
	for _, w := range ways {
		slices.Sort(w.latencies)
		n := len(w.latencies)
		fmt.Fprintf(b.out, "%-12s %8d %14v %10v %10v\n", w.name, n, (w.cpu / time.Duration(n)).Round(time.Microsecond),
			w.latencies[n/2].Round(10*time.Microsecond), w.latencies[min(n-1, n*99/100)].Round(10*time.Microsecond))
	}
	var profiles []string
	for _, w := range ways {
		profiles = append(profiles, w.profiles...)
	}
	args := append([]string{"tool", "pprof", "-top", "-cum", "-nodefraction=0", "-nodecount=100000", b.binary}, profiles...)
	told, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return fmt.Errorf("read the profiles: %w", err)
	}
	shares := map[string]float64{}
	for line := range strings.Lines(string(told)) {
		if m := inProfile.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			shares[m[2]], _ = strconv.ParseFloat(m[1], 64)
		}
	}
	share, ok := shares["checkSignature"]
	if !ok {
		return errors.New("the profiles do not tell what signatures cost")
	}
	fmt.Fprintf(b.out, "of the process's time while pushes are signed: everything from the door on %.1f %%, reading the body, hashing it and verifying the signature %.1f %%\n", shares["serve"], share)
	if share > most {
		return fmt.Errorf("MISSED: the signature takes %.1f %%, at most %g %% are good", share, most)
	}
	fmt.Fprintf(b.out, "met: at most %g %%\n", most)
	return nil
}
