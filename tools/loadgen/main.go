// Command loadgen pushes synthetic metrics by remote write: many series of Kubernetes shape over few
// connections, as fast as the server takes them or at scrape intervals. It encodes ahead of time,
// reports its own cost, and reads back what was acknowledged.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

type settings struct {
	load.Options
	target  load.Target
	query   string
	scrapes int
	ahead   int
	live    bool
	pid     int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func parse(args []string, out io.Writer) (*settings, error) {
	s := &settings{target: load.Target{Header: http.Header{}}}
	f := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&s.target.URL, "url", "http://127.0.0.1:8080/api/v1/push", "where to push")
	f.StringVar(&s.query, "query-url", "", "base of the query API to read back from at the end, for example http://127.0.0.1:8080/prometheus; empty: do not")
	f.IntVar(&s.Series, "series", 10_000, "series of each tenant")
	f.IntVar(&s.Tenants, "tenants", 0, "number of tenants, named after -tenant with a number; 0: -tenant alone")
	f.StringVar(&s.Tenant, "tenant", "load", "X-Scope-OrgID")
	f.Func("header", "`Name: value` to add to every request and query, for example Authorization; may be repeated", func(v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok {
			return errors.New("want Name: value")
		}
		s.target.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	f.IntVar(&s.target.Connections, "connections", 4, "connections; a series keeps its own")
	f.IntVar(&s.target.Retries, "retries", 10, "tries after the first of a request that is answered 429, 5xx or not at all")
	f.IntVar(&s.scrapes, "scrapes", 10, "samples of each series")
	f.IntVar(&s.ahead, "ahead", 10, "scrapes that are encoded before they are sent; each takes 40 bytes a sample")
	f.DurationVar(&s.Interval, "interval", 15*time.Second, "time between the samples of a series")
	f.BoolVar(&s.live, "live", false, "send at the pace of -interval with the times of now, instead of at once with past times")
	f.BoolVar(&s.Version2, "v2", false, "remote write 2.0 instead of 1.0")
	f.IntVar(&s.RequestSamples, "request-samples", 2000, "samples of a request")
	f.Float64Var(&s.Churn, "churn", 0, "part of the targets that are replaced at each scrape, with all their series")
	f.Float64Var(&s.Exemplars, "exemplars", 0, "part of the samples of classic histograms that carry an exemplar")
	f.Float64Var(&s.NativeHistograms, "native-histograms", 0, "part of the series that are native histograms")
	f.Uint64Var(&s.Seed, "seed", 1, "of the values")
	f.IntVar(&s.pid, "pid", 0, "process ID of the server, to tell what it cost (Linux); 0: unknown")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("what is %q?", f.Arg(0))
	}
	if s.scrapes < 1 || s.ahead < 1 {
		return nil, errors.New("scrapes and ahead must be positive")
	}
	if s.live {
		s.target.Pace, s.Start = s.Interval, time.Now()
	} else {
		s.Start = time.Now().Add(-time.Duration(s.scrapes) * s.Interval)
	}
	return s, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args, out)
	if err != nil {
		return err
	}
	l, err := load.New(s.Options)
	if err != nil {
		return err
	}
	var sum load.Report
	var preparing, server time.Duration
	for left := s.scrapes; left > 0; left -= min(left, s.ahead) {
		b, err := l.Prepare(ctx, min(left, s.ahead))
		if err != nil {
			return err
		}
		preparing += b.CPU
		before := s.serverCPU()
		r, err := s.target.Send(ctx, b, s.Version2)
		server += s.serverCPU() - before
		sum.Add(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d scrapes: %d samples acknowledged in %v\n", l.Scrapes(), sum.Acknowledged, sum.Wall.Round(time.Millisecond))
	}
	s.print(out, l, sum, preparing, server)
	if sum.Refused > 0 {
		return fmt.Errorf("%d samples were refused, the first for: %s", sum.Refused, sum.Refusal)
	}
	if s.query == "" {
		return nil
	}
	found, err := l.ReadBack(ctx, s.query, s.target.Header)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "read back: %d series, %d samples\n", found.Series, found.Samples)
	return l.Check(found, sum)
}

func (s *settings) serverCPU() time.Duration {
	if s.pid == 0 {
		return 0
	}
	d, err := load.CPUOf(s.pid)
	if err != nil {
		return 0
	}
	return d
}

func (s *settings) print(out io.Writer, l *load.Load, r load.Report, preparing, server time.Duration) {
	perMillion := func(d time.Duration) float64 { return d.Seconds() / float64(max(r.Acknowledged, 1)) * 1e6 }
	fmt.Fprintf(out, "series %d, samples acknowledged %d, refused %d, requests %d, retries %d\n",
		l.DistinctSeries(), r.Acknowledged, r.Refused, r.Requests, r.Retries)
	fmt.Fprintf(out, "%.0f samples/s, %.1f bytes/sample, request p50 %v p99 %v\n", float64(r.Acknowledged)/r.Wall.Seconds(),
		float64(r.Bytes)/float64(max(r.Acknowledged, 1)), r.Latency(0.5).Round(time.Microsecond), r.Latency(0.99).Round(time.Microsecond))
	fmt.Fprintf(out, "own cost: %.3f cpu-s per million samples sent; prepared before at %.3f\n", perMillion(r.CPU), perMillion(preparing))
	if server > 0 {
		fmt.Fprintf(out, "server: %.3f cpu-s per million samples\n", perMillion(server))
	}
}
