package main

import (
	"context"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// smallest is the query that costs a server next to nothing beyond its way to where it is answered.
const smallest = "alert/absent"

// hop asks the smallest query again and again, and tells what each process took for it: processor time, and how
// often its threads went to sleep, each of which is a wake-up for somebody.
func (b *bench) hop(ctx context.Context, qs []query, servers ...*server) error {
	q := qs[slices.IndexFunc(qs, func(q query) bool { return q.name == smallest })]
	b.printf("\n%d times %s, for each: processor time, threads that went to sleep\n", b.hops, q.text)
	for _, s := range servers {
		if err := b.hopTo(ctx, s, q); err != nil {
			return err
		}
	}
	return nil
}

// hopTo asks one server.
func (b *bench) hopTo(ctx context.Context, s *server, q query) error {
	for range b.hops / 10 { // what is made for the first ones is not counted
		if _, err := s.get(ctx, q.path, q.form); err != nil {
			return err
		}
	}
	before, err := s.cpus()
	if err != nil {
		return err
	}
	slept, err := s.switches()
	if err != nil {
		return err
	}
	began := time.Now()
	for range b.hops {
		if _, err := s.get(ctx, q.path, q.form); err != nil {
			return err
		}
	}
	took := time.Since(began)
	after, err := s.cpus()
	if err != nil {
		return err
	}
	woken, err := s.switches()
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(b.hops) }
	var cpu time.Duration
	var sum int64
	for i, p := range s.procs {
		used := after[i] - before[i] - time.Duration(s.idle[i]*float64(took))
		n := woken[i] - slept[i]
		cpu, sum = cpu+used, sum+n
		b.printf("  %-16s %8.0f µs %8.1f\n", p.Name, each(used), float64(n)/float64(b.hops))
	}
	b.printf("%-18s %8.0f µs %8.1f, answered in %.0f µs\n", s.name, each(cpu), float64(sum)/float64(b.hops), each(took))
	return nil
}

// switches is how often each process's threads went to sleep.
func (s *server) switches() ([]int64, error) {
	out := make([]int64, len(s.procs))
	for i, p := range s.procs {
		var err error
		if out[i], err = load.SwitchesOf(p.PID()); err != nil {
			return nil, err
		}
	}
	return out, nil
}
