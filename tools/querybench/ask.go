package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settle is how long a server may finish what an answer began, such as collecting garbage.
const settle = 150 * time.Millisecond

// cost is what one server took for one query.
type cost struct {
	cpu   time.Duration // of all turns, without what the server would have used anyhow
	times []time.Duration
	bytes int
	store traffic // of all turns
}

func (c *cost) ask(ctx context.Context, s *server, q query, repeat int) ([]byte, error) {
	had, err := s.traffic(ctx)
	if err != nil {
		return nil, err
	}
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	var body []byte
	all := time.Now()
	for range repeat {
		began := time.Now()
		if body, err = s.get(ctx, q.path, q.form); err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		c.times = append(c.times, time.Since(began))
	}
	time.Sleep(settle)
	after, err := s.cpu()
	if err != nil {
		return nil, err
	}
	c.cpu += max(0, after-before-s.anyhow(time.Since(all)))
	c.bytes = len(body)
	has, err := s.traffic(ctx)
	c.store.requests += has.requests - had.requests
	c.store.bytes += has.bytes - had.bytes
	return body, err
}

// A quick query is asked several times in a turn, for a second or mostTimes: what a server does beside it, such
// as collecting garbage of others, counts little then.
const (
	turnTime  = time.Second
	mostTimes = 100
)

// rest finds out what the processes of the servers use while nobody asks them, so that it can be taken off:
// seven processes talk to each other, and look at clocks, seven times as much as one.
func (b *bench) rest(ctx context.Context, servers ...*server) error {
	before := make([][]time.Duration, len(servers))
	for i, s := range servers {
		var err error
		if before[i], err = s.cpus(); err != nil {
			return err
		}
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(b.idle):
	}
	took := time.Since(began)
	for i, s := range servers {
		after, err := s.cpus()
		if err != nil {
			return err
		}
		s.idle = make([]float64, len(after))
		b.printf("%s uses while nobody asks, in ms a second, which is taken off what queries cost:", s.name)
		for j := range after {
			s.idle[j] = float64(after[j]-before[i][j]) / float64(took)
			b.printf(" %s %.2f", s.procs[j].Name, 1000*s.idle[j])
		}
		b.printf("\n")
	}
	return nil
}

// anyhow is what s would have used in that time if nobody had asked.
func (s *server) anyhow(took time.Duration) (sum time.Duration) {
	for _, part := range s.idle {
		sum += time.Duration(part * float64(took))
	}
	return sum
}

// ask asks both servers everything and prints what it cost.
func (b *bench) ask(ctx context.Context, qs []query, ours, theirs *server) error {
	b.printf("\n%-34s %9s %9s %6s   %8s %8s %8s %8s   %9s %9s\n", "", "ours", "Prom.", "ratio", "our p50", "p50", "our p99", "p99", "our kB", "kB")
	if b.blocks {
		b.printf("%-34s behind it: requests to object storage and kB from there, when a query is asked first and after that\n", "")
	}
	sums := map[string][2]time.Duration{}
	var order []string
	asked, cold := 0, traffic{}
	for _, q := range qs {
		if !strings.Contains(q.name, b.only) {
			continue
		}
		asked++
		first, mine, other, err := b.measure(ctx, q, ours, theirs)
		if err != nil {
			return err
		}
		b.row(q.name, mine, other)
		if b.blocks {
			b.printf("   %s  %s", first.store, mine.store)
			cold.requests, cold.bytes = cold.requests+first.store.requests, cold.bytes+first.store.bytes
		}
		b.printf("\n")
		for _, set := range []string{q.set, "all"} {
			if _, ok := sums[set]; !ok {
				order = append(order, set)
			}
			s := sums[set]
			sums[set] = [2]time.Duration{s[0] + mine.perQuery(), s[1] + other.perQuery()}
		}
	}
	for _, set := range order {
		s := sums[set]
		b.printf("%-34s %8.0fm %8.0fm %6.2f\n", "sum of "+set, ms(s[0]), ms(s[1]), ratio(s[0], s[1]))
	}
	if b.blocks {
		b.printf("all queries, asked for the first time: %.0f requests to object storage, %.1f MB\n", cold.requests, cold.bytes/1e6)
	}
	for _, s := range []*server{ours, theirs} {
		anon, err := s.anon()
		if err != nil {
			return err
		}
		b.printf("memory of %s after %d queries: %.0f MB\n", s.name, asked, float64(anon)/1e6)
	}
	return nil
}

// measure asks one query in turns and compares the answers. first is what ours took when it was asked first,
// which warms it up.
func (b *bench) measure(ctx context.Context, q query, ours, theirs *server) (first, mine, other cost, err error) {
	var answers [2][]byte
	repeat := 1
	for turn := -1; turn < b.turns; turn++ {
		for i, s := range []*server{ours, theirs} {
			c := []*cost{&mine, &other}[i]
			if turn < 0 {
				c = []*cost{&first, {}}[i]
			}
			if answers[i], err = c.ask(ctx, s, q, repeat); err != nil {
				return first, mine, other, err
			}
			if turn < 0 && i == 0 {
				repeat = int(min(max(turnTime/max(c.times[0], 1), 1), mostTimes))
			}
		}
	}
	return first, mine, other, differ(q, answers[0], answers[1])
}

func (c *cost) perQuery() time.Duration { return c.cpu / time.Duration(max(len(c.times), 1)) }

// quantile is the time that a part of the answers took at most; of few answers, p99 is the longest.
func (c *cost) quantile(part float64) time.Duration {
	slices.Sort(c.times)
	return c.times[min(int(part*float64(len(c.times))), len(c.times)-1)]
}

func (b *bench) row(name string, a, p cost) {
	b.printf("%-34s %8.1fm %8.1fm %6.2f   %7.0fm %7.0fm %7.0fm %7.0fm   %9.1f %9.1f", name, ms(a.perQuery()), ms(p.perQuery()), ratio(a.perQuery(), p.perQuery()),
		ms(a.quantile(0.5)), ms(p.quantile(0.5)), ms(a.quantile(0.99)), ms(p.quantile(0.99)), float64(a.bytes)/1e3, float64(p.bytes)/1e3)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// answer is a response of the API.
type answer struct {
	Data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Value  []any
			Values [][]any
		}
	}
}

// differ says where two answers differ by more than the last bits of a sum.
func differ(q query, ours, theirs []byte) error {
	var sides [2]map[string][][]any
	for i, body := range [][]byte{ours, theirs} {
		var a answer
		if err := json.Unmarshal(body, &a); err != nil {
			return fmt.Errorf("answer to %s: %w", q.name, err)
		}
		sides[i] = map[string][][]any{}
		for _, r := range a.Data.Result {
			if r.Value != nil {
				r.Values = [][]any{r.Value}
			}
			sides[i][fmt.Sprint(r.Metric)] = r.Values
		}
	}
	if len(sides[0]) != len(sides[1]) {
		return fmt.Errorf("answers to %s have %d and %d series", q.name, len(sides[0]), len(sides[1]))
	}
	for metric, values := range sides[0] {
		others := sides[1][metric]
		if len(values) != len(others) {
			return fmt.Errorf("answers to %s have %d and %d values of %s", q.name, len(values), len(others), metric)
		}
		for i := range values {
			a, _ := strconv.ParseFloat(fmt.Sprint(values[i][1]), 64) // a text that is none is NaN's
			p, _ := strconv.ParseFloat(fmt.Sprint(others[i][1]), 64)
			if values[i][0] != others[i][0] || a != p && math.Abs(a-p) > 1e-12*math.Abs(p) && !(math.IsNaN(a) && math.IsNaN(p)) {
				return fmt.Errorf("answers to %s differ for %s: %v and %v", q.name, metric, values[i], others[i])
			}
		}
	}
	return nil
}
