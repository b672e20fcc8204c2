// Command benchwrite compares the cost of a write with that of a Prometheus that receives the same
// requests: processor time, memory and disk, by turns in one run on one machine. Linux only.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

func main() { harness.BenchMain("benchwrite", run) }

// bench is one run of the command.
type bench struct {
	out    io.Writer
	dir    string
	binary string
	base   string   // the amphora to compare with instead of a Prometheus; "": none
	flags  []string // for our processes
	short  bool
	goals  []goal
}

func run(ctx context.Context, args []string, out io.Writer) error {
	b := &bench{out: out}
	f := flag.NewFlagSet("benchwrite", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&b.dir, "dir", "data/bench-write", "where the servers keep their data; emptied before and removed after. Fsync costs what this file system makes it cost")
	f.StringVar(&b.binary, "binary", "", "the amphora to measure; empty: build it")
	f.StringVar(&b.base, "baseline", "", "an amphora of another version to compare with instead of a Prometheus")
	f.BoolVar(&b.short, "short", false, "a tenth of the series, about a minute")
	only := f.String("only", "", "scenarios to run, by comma; empty: all of "+strings.Join(scenarioNames(), ","))
	latest := f.Duration("latest", 8*time.Minute, "start no scenario later than this; on an idle machine all of them take about half as long")
	flags := f.String("flags", "", "further flags for our processes, by space")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.flags = strings.Fields(*flags)
	began := time.Now()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }() // what stays is said by du, and emptied by the next run
	for _, s := range scenarios() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		b.printf("\n%s: %s\n", s.name, s.doc)
		if time.Since(began) > *latest {
			b.printf("  left out: the run has taken more than %v\n", *latest)
			continue
		}
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.verdict()
	b.printf("took %v\n", time.Since(began).Round(time.Second))
	return nil
}

func (b *bench) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// prepare finds the programs and tells what is measured on what.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.dir, b.binary, err = harness.BenchDir(ctx, b.dir, b.binary); err != nil {
		return err
	}
	b.printf("machine: %d CPUs (%s), %s memory available, load %s, %s\n",
		runtime.NumCPU(), cpuModel(), megabytes(memoryAvailable()), loadAverage(), runtime.Version())
	b.printf("cost is processor time of the server's processes; MB is a million bytes; memory is anonymous and resident, the peak\n")
	return nil
}

// scenario is one comparison.
type scenario struct {
	name, doc string
	run       func(*bench, context.Context) error
}

func scenarios() []scenario {
	return []scenario{
		{"steady", "100,000 known series, one sample each per request of 2,000, 4 connections", (*bench).steady},
		{"large", "the same with 1,000,000 series", (*bench).large},
		{"first", "500,000 series from the first sample on, 10 scrapes", (*bench).first},
		{"tenants", "1,000 tenants of 100 series in one process of ours", (*bench).tenants},
		{"replicas", "one distributor and 3 ingesters, 3 replicas, against one distributor and 1 ingester, 1 replica", (*bench).replicas},
	}
}

func scenarioNames() []string {
	var out []string
	for _, s := range scenarios() {
		out = append(out, s.name)
	}
	return out
}

// goal is one line of the verdict.
type goal struct {
	name      string
	got, most float64
}

func (b *bench) want(name string, got, most float64) {
	b.goals = append(b.goals, goal{name, got, most})
}

func (b *bench) verdict() {
	if len(b.goals) == 0 {
		return
	}
	b.printf("\nverdict\n")
	for _, g := range b.goals {
		word := "met"
		if g.got > g.most {
			word = "MISSED"
		}
		b.printf("  %-7s %-66s %8.2f   at most %g\n", word, g.name, g.got, g.most)
	}
	if b.short {
		b.printf("  a short run has too few series and samples to hold the goals against anybody\n")
	}
}
