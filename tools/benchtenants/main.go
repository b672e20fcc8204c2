// Command benchtenants measures what tenants cost a process apart from their samples: memory,
// goroutines, open files, mappings, idle processor time, the metrics page, and the restart after a
// crash. Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

func main() { harness.BenchMain("benchtenants", run) }

// bench is one run of the command.
type bench struct {
	out      io.Writer
	dir      string
	binary   string
	flags    []string
	profiles string
	tenants  int
	series   int
	scrapes  int
	idle     time.Duration

	node *harness.Node
	rows []row
}

// row is what the process was like at one moment.
type row struct {
	when string
	usage
}

const (
	startWait = 10 * time.Minute
	pushWait  = 30 * time.Minute
)

func run(ctx context.Context, args []string, out io.Writer) error {
	b := &bench{out: out}
	f := flag.NewFlagSet("benchtenants", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&b.dir, "dir", "data/bench-tenants", "where the process keeps its data; emptied before and removed after")
	f.StringVar(&b.binary, "binary", "", "the amphora to measure; empty: build it")
	f.StringVar(&b.profiles, "profiles", "", "a directory for heap profiles, one for each row; empty: none")
	f.IntVar(&b.tenants, "tenants", 1000, "tenants")
	f.IntVar(&b.series, "series", 100, "series of each")
	f.IntVar(&b.scrapes, "scrapes", 1, "samples of each series, 15 s apart")
	f.DurationVar(&b.idle, "idle", 30*time.Second, "how long to watch the process do nothing")
	flags := f.String("flags", "", "further flags for the process, by space")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.flags = strings.Fields(*flags)
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, b.binary, err = harness.BenchDir(ctx, b.dir, b.binary); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	c, err := harness.NewCluster(ctx, harness.Options{Dir: b.dir, Binary: b.binary, Nodes: harness.OneProcess(), Replicas: 1, Files: true,
		Flags: append([]string{"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000"}, b.flags...)})
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err != nil {
		return err
	}
	b.node = c.Nodes()[0]
	if err := b.ready(ctx); err != nil {
		return err
	}
	return b.measure(ctx)
}

func (b *bench) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	return b.node.WaitReady(ctx)
}

// measure takes a row of an empty process, of one with tenants, and of one that was killed and
// started again, and prints what each tenant costs.
func (b *bench) measure(ctx context.Context) error {
	if err := b.look(ctx, "empty"); err != nil {
		return err
	}
	push, err := b.push(ctx)
	if err != nil {
		return err
	}
	if err := b.look(ctx, "with tenants"); err != nil {
		return err
	}
	began := time.Now()
	if err := errors.Join(b.node.Kill(), b.node.Start()); err != nil {
		return err
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	restart := time.Since(began)
	if err := b.look(ctx, "read back"); err != nil {
		return err
	}
	b.print(push, restart)
	return nil
}

// push sends the load and returns the processor time that it cost.
func (b *bench) push(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, pushWait)
	defer cancel()
	const interval = 15 * time.Second
	l, err := load.New(load.Options{Series: b.series, Tenants: b.tenants, Tenant: "tenant", Interval: interval,
		Start: time.Now().Add(-time.Duration(b.scrapes) * interval)})
	if err != nil {
		return 0, err
	}
	before, err := load.CPUOf(b.node.PID())
	if err != nil {
		return 0, err
	}
	for range b.scrapes {
		batch, err := l.Prepare(ctx, 1)
		if err != nil {
			return 0, err
		}
		report, err := load.Target{URL: b.node.URL("/api/v1/push"), Connections: 4, Retries: 10}.Send(ctx, batch, false)
		if err != nil {
			return 0, err
		}
		if report.Refused > 0 {
			return 0, fmt.Errorf("%d of %d samples were refused: %s", report.Refused, batch.Samples, report.Refusal)
		}
	}
	after, err := load.CPUOf(b.node.PID())
	return after - before, err
}

// look adds a row.
func (b *bench) look(ctx context.Context, when string) error {
	u, err := usageOf(ctx, b.node, b.idle)
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{when, u})
	if b.profiles == "" {
		return nil
	}
	profile, err := harness.Get(ctx, b.node.URL("/debug/pprof/heap"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.profiles, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.profiles, strings.ReplaceAll(when, " ", "-")+".pb.gz"), profile, 0o600)
}

func (b *bench) print(push, restart time.Duration) {
	fmt.Fprintf(b.out, "%d tenants, %d series each, %d samples each; %s watched idle\n", b.tenants, b.series, b.scrapes, b.idle)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\twith garbage MB\tanonymous MB\theap MB\tgoroutines\topen files\tmappings\tidle CPU ms/s\tmetrics kB\tmetrics ms\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%d\t%d\t%d\t%.2f\t%.0f\t%.0f\t\n", r.when, float64(r.found)/1e6, float64(r.anon)/1e6, float64(r.heap)/1e6,
			r.goroutines, r.files, r.mappings, r.idleCPU*1000, float64(r.page)/1e3, float64(r.pageTook.Microseconds())/1e3)
	}
	for _, r := range b.rows[1:] {
		n, zero := float64(b.tenants), b.rows[0]
		fmt.Fprintf(w, "a tenant, %s\t%.1f kB\t%.1f kB\t%.1f kB\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t%.3f\t\n", r.when, float64(r.found-zero.found)/n/1e3, float64(r.anon-zero.anon)/n/1e3,
			float64(r.heap-zero.heap)/n/1e3, float64(r.goroutines-zero.goroutines)/n, float64(r.files-zero.files)/n,
			float64(r.mappings-zero.mappings)/n, (r.idleCPU-zero.idleCPU)*1000/n, float64(r.page-zero.page)/n/1e3,
			float64((r.pageTook-zero.pageTook).Microseconds())/n/1e3)
	}
	_ = w.Flush() // the output is a terminal or a file of the caller's
	fmt.Fprintf(b.out, "processor time of the pushes %s; ready %s after a kill\n", push.Round(time.Millisecond), restart.Round(time.Millisecond))
}
