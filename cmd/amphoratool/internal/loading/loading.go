// Package loading owns the command that generates load on a server.
package loading

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// command is one invocation.
type command struct {
	*cli.Env
	options load.Options
	target  load.Target
	reader  client.Client

	query, queryURL                       string
	parallel                              int
	queryTimeout, queryDuration, duration time.Duration
	asked, failed                         atomic.Int64
}

// Register adds `loadgen`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e, target: load.Target{Header: http.Header{}}}
	cmd := app.Command("loadgen", "Write series of Kubernetes shape at the pace of scrapes, and ask queries, until it is stopped.")
	cmd.Flag("write-url", "Where to write; nothing is written if it is empty.").StringVar(&c.target.URL)
	cmd.Flag("active-series", "Series.").Default("1000").IntVar(&c.options.Series)
	cmd.Flag("series-name", "Names are those that a Kubernetes cluster has.").Hidden().String()
	cmd.Flag("scrape-interval", "Time between samples of a series.").Default("15s").DurationVar(&c.options.Interval)
	cmd.Flag("parallelism", "Connections that write.").Default("10").IntVar(&c.target.Connections)
	cmd.Flag("batch-size", "Samples of a request.").Default("100").IntVar(&c.options.RequestSamples)
	cmd.Flag("id", "Tenant.").Default("load").StringVar(&c.options.Tenant)
	cmd.Flag("remote-write-v2", "Write with version 2.0.").BoolVar(&c.options.Version2)
	cmd.Flag("churn", "Part of the series that are replaced at each scrape.").Float64Var(&c.options.Churn)
	cmd.Flag("native-histograms", "Part of the series that are native histograms.").Float64Var(&c.options.NativeHistograms)
	cmd.Flag("write-timeout", "Writes are tried again until they succeed.").Hidden().Duration()
	cmd.Flag("metrics-listen-address", "Figures are printed instead.").Hidden().String()
	cmd.Flag("query-url", "Base of the query API; nothing is asked if it is empty.").StringVar(&c.queryURL)
	cmd.Flag("query", "What to ask.").Default("sum(up)").StringVar(&c.query)
	cmd.Flag("query-parallelism", "Queries at once.").Default("10").IntVar(&c.parallel)
	cmd.Flag("query-timeout", "How long a query may take.").Default("20s").DurationVar(&c.queryTimeout)
	cmd.Flag("query-duration", "Time range of a query.").Default("1h").DurationVar(&c.queryDuration)
	cmd.Flag("duration", "Stop after this time; 0: never.").DurationVar(&c.duration)
	e.Do(cmd, c.run)
}

func (c *command) run(ctx context.Context) error {
	if c.target.URL == "" && c.queryURL == "" {
		return errors.New("nothing to do: use --write-url or --query-url")
	}
	if c.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.duration)
		defer cancel()
	}
	g, gctx := errgroup.WithContext(ctx)
	if c.target.URL != "" {
		g.Go(func() error { return c.write(gctx) })
	}
	if c.queryURL != "" {
		c.reader.Address, c.reader.Tenant = c.queryURL, c.options.Tenant
		if err := c.reader.OpenFor(c.queryTimeout); err != nil {
			return err
		}
		for range max(c.parallel, 1) {
			g.Go(func() error { return c.ask(gctx) })
		}
	}
	err := g.Wait()
	if n := c.asked.Load(); n > 0 {
		c.Say("queries: %d answered, %d failed", n-c.failed.Load(), c.failed.Load())
	}
	if ctx.Err() != nil {
		return nil // it was stopped, which is how it ends
	}
	return err
}

func (c *command) write(ctx context.Context) error {
	c.target.Pace, c.target.Retries, c.options.Start = c.options.Interval, 10, time.Now()
	l, err := load.New(c.options)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		b, err := l.Prepare(ctx, 1)
		if err != nil {
			return err
		}
		r, err := c.target.Send(ctx, b, c.options.Version2)
		if err != nil {
			return err
		}
		if r.Refused > 0 {
			c.Log.Warn("samples refused", "samples", r.Refused, "reason", r.Refusal)
		}
		c.Say("scrape %d: %d samples acknowledged, slowest request %v", l.Scrapes(), r.Acknowledged, r.Latency(1).Round(time.Millisecond))
	}
	return nil
}

// pauseBetweenQueries keeps a server that answers at once from being all that there is load on.
const pauseBetweenQueries = 10 * time.Millisecond

func (c *command) ask(ctx context.Context) error {
	for ctx.Err() == nil {
		now := time.Now()
		q := url.Values{"query": {c.query}, "start": {stamp(now.Add(-c.queryDuration))}, "end": {stamp(now)}, "step": {fmt.Sprint(max(c.queryDuration/250, time.Second).Seconds())}}
		c.asked.Add(1)
		if _, err := c.reader.Get(ctx, "/api/v1/query_range?"+q.Encode()); err != nil && ctx.Err() == nil {
			c.failed.Add(1)
			c.Log.Warn("query failed", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pauseBetweenQueries):
		}
	}
	return nil
}

func stamp(t time.Time) string { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1000) }
