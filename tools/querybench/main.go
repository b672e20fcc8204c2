// Command querybench compares the cost of queries with that of a Prometheus that holds the same
// samples: processor time, latency, memory and bytes of the answers, by turns in one run on one
// machine. It also compares the answers. Linux only.
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
	every   time.Duration
	split   bool
	join    []string // services that share a process although it is split
	blocks  bool
	turns   int
	idle    time.Duration
	hops    int
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
	f.IntVar(&b.scrapes, "scrapes", 50, "samples of each series")
	f.DurationVar(&b.every, "interval", 30*time.Second, "how far these are apart")
	f.BoolVar(&b.split, "split", false, "a process for each part of ours: gateway, frontend, scheduler, querier, ingester, distributor, store-gateway")
	f.BoolVar(&b.blocks, "blocks", false, "ours answers from blocks alone; -scrapes=720 -interval=2m are 24 hours")
	f.IntVar(&b.turns, "turns", 3, "how often each query is asked of each server, after once to warm up")
	f.DurationVar(&b.idle, "idle", 10*time.Second, "for how long it is measured, before the first query, what the servers use while nobody asks")
	f.IntVar(&b.hops, "hops", 0, "ask the smallest query so often at last, and tell what each process took for it")
	f.StringVar(&b.only, "only", "", "ask only queries whose names contain this")
	f.StringVar(&b.profile, "profile", "", "a file for the processor profile of our process while it answers")
	f.DurationVar(&b.wait, "wait", 0, "stay for so long after the last answer, to look at the servers")
	join := f.String("join", "", "with -split: services that share one process, such as query-frontend,query-scheduler")
	flags := f.String("flags", "", "further flags for our process, by space")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.flags = strings.Fields(*flags)
	if *join != "" {
		b.join = strings.Split(*join, ",")
	}
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
	b.printf("machine: %d CPUs, load %.14s, %s; %d series, %d samples each, %s apart; split %t, from blocks %t\n",
		runtime.NumCPU(), average, runtime.Version(), b.series, b.scrapes, b.every, b.split, b.blocks)
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
	first, last, err := b.fill(ctx, ours, theirs)
	if err != nil {
		return err
	}
	names, err := theirs.names(ctx)
	if err != nil {
		return err
	}
	qs, err := queries(names, first, last)
	if err != nil {
		return err
	}
	if b.blocks {
		if err := ours.cut(ctx, unmeasured(first, last), theirs); err != nil {
			return err
		}
	}
	for _, s := range []*server{ours, theirs} {
		spent, err := s.calm(ctx)
		if err != nil {
			return err
		}
		b.printf("%s was calm after %s of processor time after the fill\n", s.name, spent.Round(10*time.Millisecond))
	}
	done := make(chan error, 1)
	if b.profile != "" {
		go func() { done <- ours.profile(ctx, b.profile) }()
	}
	if err = b.rest(ctx, ours, theirs); err == nil {
		err = b.ask(ctx, qs, ours, theirs)
	}
	if err == nil && b.hops > 0 {
		err = b.hop(ctx, qs, ours, theirs)
	}
	if err != nil {
		for _, p := range ours.procs { // one of them may know
			err = fmt.Errorf("%w\nlog of %s ends:\n%s", err, p.Name, p.Tail())
		}
	}
	if b.profile != "" {
		err = errors.Join(err, <-done)
	}
	select {
	case <-ctx.Done():
	case <-time.After(b.wait):
	}
	return err
}

// fill sends both servers the same samples, and returns the times of the first and the last.
func (b *bench) fill(ctx context.Context, ours, theirs *server) (first, last time.Time, err error) {
	l, err := load.New(load.Options{Series: b.series, Interval: b.every, Tenant: tenantName, Start: time.Now().Add(-time.Duration(b.scrapes) * b.every)})
	if err != nil {
		return first, last, err
	}
	for range b.scrapes {
		batch, err := l.Prepare(ctx, 1)
		if err != nil {
			return first, last, err
		}
		for _, s := range []*server{ours, theirs} {
			r, err := (load.Target{URL: s.push, Connections: 2, Retries: 10}).Send(ctx, batch, false)
			if err == nil && r.Refused > 0 {
				err = fmt.Errorf("%d samples refused: %s", r.Refused, r.Refusal)
			}
			if err != nil {
				return first, last, fmt.Errorf("fill %s: %w", s.name, err)
			}
		}
	}
	first, last = l.Times()
	return first, last, nil
}
