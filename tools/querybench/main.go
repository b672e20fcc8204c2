// Command querybench compares what queries cost here with what they cost a Prometheus that holds the
// same samples: processor time, latency, memory and bytes of the answers, in one run on one machine,
// the servers taking turns. It also holds the answers against each other. Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

func main() { harness.BenchMain("querybench", run) }

// bench is one run of the command.
type bench struct {
	out     io.Writer
	dir     string
	binary  string
	flags   []string // for our process
	series  int
	scrapes int
	turns   int
	only    string
	profile string
	wait    time.Duration
}

func run(ctx context.Context, args []string, out io.Writer) error {
	b := &bench{out: out}
	f := flag.NewFlagSet("querybench", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&b.dir, "dir", "data/bench-query", "where the servers keep their data; emptied before and removed after")
	f.StringVar(&b.binary, "binary", "", "the amphora to measure; empty: build it")
	f.IntVar(&b.series, "series", 200_000, "series of the data")
	f.IntVar(&b.scrapes, "scrapes", 50, "samples of each series, 30 s apart")
	f.IntVar(&b.turns, "turns", 3, "how often each query is asked of each server, after once to warm up")
	f.StringVar(&b.only, "only", "", "ask only queries whose names contain this")
	f.StringVar(&b.profile, "profile", "", "a file for the processor profile of our process while it answers")
	f.DurationVar(&b.wait, "wait", 0, "stay for so long after the last answer, to look at the servers")
	flags := f.String("flags", "", "further flags for our process, by space")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.flags = strings.Fields(*flags)
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }() // what stays is emptied by the next run
	return b.compare(ctx)
}

func (b *bench) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// prepare finds the programs and tells what is measured on what.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.dir, b.binary, err = harness.BenchDir(ctx, b.dir, b.binary); err != nil {
		return err
	}
	average, _ := os.ReadFile("/proc/loadavg") // only printed
	b.printf("machine: %d CPUs, load %.14s, %s; %d series, %d samples each\n", runtime.NumCPU(), average, runtime.Version(), b.series, b.scrapes)
	return nil
}

// compare fills both servers and asks them.
func (b *bench) compare(ctx context.Context) (err error) {
	ours, err := b.startOurs(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	theirs, err := b.startPrometheus(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, theirs.stop()) }()
	const interval = 30 * time.Second
	l, err := load.New(load.Options{Series: b.series, Interval: interval, Tenant: tenantName, Start: time.Now().Add(-time.Duration(b.scrapes) * interval)})
	if err != nil {
		return err
	}
	for range b.scrapes {
		batch, err := l.Prepare(ctx, 1)
		if err != nil {
			return err
		}
		for _, s := range []*server{ours, theirs} {
			r, err := (load.Target{URL: s.push, Connections: 2, Retries: 10}).Send(ctx, batch, false)
			if err == nil && r.Refused > 0 {
				err = fmt.Errorf("%d samples refused: %s", r.Refused, r.Refusal)
			}
			if err != nil {
				return fmt.Errorf("fill %s: %w", s.name, err)
			}
		}
	}
	names, err := theirs.names(ctx)
	if err != nil {
		return err
	}
	first, last := l.Times()
	qs, err := queries(names, first, last)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	if b.profile != "" {
		go func() { done <- ours.profile(ctx, b.profile) }()
	}
	err = b.ask(ctx, qs, ours, theirs)
	if b.profile != "" {
		err = errors.Join(err, <-done)
	}
	select {
	case <-ctx.Done():
	case <-time.After(b.wait):
	}
	return err
}
