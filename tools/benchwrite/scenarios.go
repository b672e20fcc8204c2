package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// contest is one load for several servers that take turns.
type contest struct {
	series  int
	warm    int // scrapes that are not measured
	turns   int
	scrapes int // of each turn
}

// settle is how long a server may finish what its turn began.
const settle = 200 * time.Millisecond

// result is what one server cost.
type result struct {
	*server
	first   float64 // processor seconds for a million samples of the first scrape
	warm    float64 // of all scrapes, the first included
	cost    float64 // of the measured turns
	turns   []float64
	peak    int64   // bytes
	logs    float64 // bytes for each sample, definitions included
	disk    int64
	report  load.Report
	ownCost float64
}

// run sends the same load to all servers and reads it back.
func (c contest) run(ctx context.Context, servers ...*server) ([]result, error) {
	scrapes := c.warm + c.turns*c.scrapes
	l, err := load.New(load.Options{Series: c.series, Start: time.Now().Add(-time.Duration(scrapes) * 15 * time.Second)})
	if err != nil {
		return nil, err
	}
	tallies := make([]tally, len(servers))
	for turn := -c.warm; turn < c.turns; turn++ {
		n := c.scrapes
		if turn < 0 {
			n = 1
		}
		batch, err := l.Prepare(ctx, n)
		if err != nil {
			return nil, err
		}
		for k := range servers {
			at := (k + max(turn, 0)) % len(servers)
			if err := tallies[at].turn(ctx, servers[at], batch, turn >= 0); err != nil {
				return nil, err
			}
		}
	}
	out := make([]result, len(servers))
	for i, s := range servers {
		s.unwatch()
		out[i] = tallies[i].result(s)
		found, err := l.ReadBack(ctx, s.query, nil)
		if err == nil {
			err = l.Check(found, tallies[i].report)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return out, nil
}

// tally adds up what the turns of one server cost.
type tally struct {
	costs    []float64     // of every turn, the warm ones first
	spent    time.Duration // in measured turns
	samples  int           // of measured turns
	all      time.Duration
	report   load.Report
	measured []float64
}

func (t *tally) turn(ctx context.Context, s *server, b *load.Batch, measured bool) error {
	runtime.GC() // so that what preparing left behind is not taken for the cost of sending
	before, err := s.cpu()
	if err != nil {
		return err
	}
	r, err := (load.Target{URL: s.push, Connections: 4, Retries: 10}).Send(ctx, b, false)
	if err != nil {
		return err
	}
	if r.Refused > 0 {
		return fmt.Errorf("%s refused %d samples: %s", s.name, r.Refused, r.Refusal)
	}
	time.Sleep(settle)
	after, err := s.cpu()
	if err != nil {
		return err
	}
	t.report.Add(r)
	t.all += after - before
	cost := perMillion(after-before, b.Samples)
	t.costs = append(t.costs, cost)
	if measured {
		t.spent += after - before
		t.samples += b.Samples
		t.measured = append(t.measured, cost)
	}
	return nil
}

func (t *tally) result(s *server) result {
	return result{
		server: s, first: t.costs[0], warm: perMillion(t.all, t.report.Acknowledged), cost: perMillion(t.spent, t.samples),
		turns: t.measured, peak: s.peak.Load(), disk: diskBytes(s.data), report: t.report,
		logs:    float64(diskBytes(s.logs...)) / float64(t.report.Acknowledged),
		ownCost: perMillion(t.report.CPU, t.report.Acknowledged),
	}
}

func perMillion(d time.Duration, samples int) float64 {
	return d.Seconds() / float64(max(samples, 1)) * 1e6
}

func (b *bench) print(results ...result) {
	b.printf("  %-12s %10s %17s %12s %10s %11s %9s %9s\n", "", "cpu-s/M", "(least..most)", "first scrape", "memory MB", "log B/sample", "disk MB", "sender")
	for _, r := range results {
		b.printf("  %-12s %10.2f %17s %12.2f %10.0f %11.1f %9.0f %9.3f\n", r.name, r.cost,
			fmt.Sprintf("(%.2f..%.2f)", slices.Min(r.turns), slices.Max(r.turns)), r.first, float64(r.peak)/1e6, r.logs, float64(r.disk)/1e6, r.ownCost)
	}
}

// against runs c for one process of ours and for Prometheus.
func (b *bench) against(ctx context.Context, c contest) (ours, theirs result, err error) {
	a, err := b.startOurs(ctx, "amphora", harness.OneProcess(), 1)
	if err != nil {
		return ours, theirs, err
	}
	p, err := b.startOther(ctx)
	if err != nil {
		return ours, theirs, errors.Join(err, a.close())
	}
	both, err := c.run(ctx, a, p)
	err = errors.Join(err, a.close(), p.close())
	if err != nil {
		return ours, theirs, err
	}
	b.print(both...)
	return both[0], both[1], nil
}

func (b *bench) steady(ctx context.Context) error {
	c := contest{series: 100_000, warm: 2, turns: 4, scrapes: 3}
	if b.short {
		c.series = 20_000
	}
	ours, theirs, err := b.against(ctx, c)
	if err != nil {
		return err
	}
	b.want("steady: CPU a sample, part of Prometheus's", ours.cost/theirs.cost, 0.18)
	b.want("steady: CPU seconds for a million samples", ours.cost, 1.2)
	b.want("steady: memory, part of Prometheus's", float64(ours.peak)/float64(theirs.peak), 0.73)
	b.want("steady: memory, MB", float64(ours.peak)/1e6, 210)
	b.want("steady: bytes of log for each sample", ours.logs, 8)
	b.want("steady: the sender's own CPU, part of our cost", ours.ownCost/ours.cost, 0.05)
	return nil
}

func (b *bench) large(ctx context.Context) error {
	const needs = 10 << 30
	c := contest{series: 1_000_000, warm: 1, turns: 1, scrapes: 1}
	if b.short || memoryAvailable() < needs {
		b.printf("  left out: a short run, or less than %s of memory available\n", megabytes(needs))
		return nil
	}
	ours, theirs, err := b.against(ctx, c)
	if err != nil {
		return err
	}
	b.want("large: CPU a sample, part of Prometheus's", ours.cost/theirs.cost, 0.18)
	b.want("large: memory, part of Prometheus's", float64(ours.peak)/float64(theirs.peak), 0.73)
	return nil
}

func (b *bench) first(ctx context.Context) error {
	c := contest{series: 500_000, warm: 1, turns: 9, scrapes: 1}
	if b.short {
		c = contest{series: 50_000, warm: 1, turns: 4, scrapes: 1}
	}
	ours, theirs, err := b.against(ctx, c)
	if err != nil {
		return err
	}
	b.printf("  all scrapes: %.2f against %.2f cpu-s/M\n", ours.warm, theirs.warm)
	b.want("first: CPU a sample, part of Prometheus's", ours.warm/theirs.warm, 0.3)
	b.want("first: memory, part of Prometheus's", float64(ours.peak)/float64(theirs.peak), 0.55)
	b.want("first: CPU microseconds for a first-seen series", ours.first, 10)
	return nil
}

func (b *bench) tenants(ctx context.Context) error {
	o := load.Options{Tenants: 1000, Series: 100, Start: time.Now().Add(-time.Minute)}
	if b.short {
		o.Tenants = 100
	}
	s, err := b.startOurs(ctx, "amphora", harness.OneProcess(), 1)
	if err != nil {
		return err
	}
	err = b.loadTenants(ctx, s, o)
	return errors.Join(err, s.close())
}

func (b *bench) loadTenants(ctx context.Context, s *server, o load.Options) error {
	time.Sleep(time.Second) // what a start leaves behind
	empty, err := s.anon()
	if err != nil {
		return err
	}
	l, err := load.New(o)
	if err != nil {
		return err
	}
	batch, err := l.Prepare(ctx, 3)
	if err != nil {
		return err
	}
	var t tally
	if err := t.turn(ctx, s, batch, true); err != nil {
		return err
	}
	s.unwatch()
	r := t.result(s)
	b.print(r)
	b.printf("  empty process %s; %.0f kB a tenant\n", megabytes(empty), float64(r.peak-empty)/1e3/float64(o.Tenants))
	b.want(fmt.Sprintf("tenants: memory over the empty process, MB (%d tenants)", o.Tenants), float64(r.peak-empty)/1e6, 300)
	found, err := l.ReadBack(ctx, s.query, nil)
	if err != nil {
		return err
	}
	return l.Check(found, t.report)
}

func (b *bench) replicas(ctx context.Context) error {
	c := contest{series: 100_000, warm: 2, turns: 4, scrapes: 2}
	if b.short {
		c.series = 20_000
	}
	front := harness.Spec{Name: "front", Target: "distributor,querier"}
	one, err := b.startOurs(ctx, "1-replica", []harness.Spec{front, {Name: "a", Target: "ingester"}}, 1)
	if err != nil {
		return err
	}
	three, err := b.startOurs(ctx, "3-replicas", []harness.Spec{front, {Name: "a", Target: "ingester"}, {Name: "b", Target: "ingester"}, {Name: "c", Target: "ingester"}}, 3)
	if err != nil {
		return errors.Join(err, one.close())
	}
	both, err := c.run(ctx, one, three)
	err = errors.Join(err, one.close(), three.close())
	if err != nil {
		return err
	}
	b.print(both...)
	b.want("replicas: CPU a sample with 3 replicas, times that with 1", both[1].cost/both[0].cost, 2.2)
	return nil
}
