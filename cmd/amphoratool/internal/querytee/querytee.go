// Package querytee owns the command that proxies queries to two installations and compares their
// answers, for use before a migration.
package querytee

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

// stopWait bounds how long requests under way may take when the command is told to stop.
const stopWait = 30 * time.Second

// headerWait bounds how long a client may take to say what it wants.
const headerWait = 10 * time.Second

// command is one invocation.
type command struct {
	*cli.Env
	endpoints, preferred      string
	timeout                   time.Duration
	address, metricsAddress   string
	port, metricsPort         int
	prefix                    string
	compare, relative, passOn bool
	exactErrors, addTime      bool
	tolerance                 float64
	skipRecent, slow          time.Duration
	parallel                  int
}

// Register adds `query-tee`. The flags are those of Mimir's program of that name.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	cmd := app.Command("query-tee", "Send queries to two installations and compare their answers, until it is stopped.")
	cmd.Flag("backend.endpoints", "URLs of the installations, separated by commas. Names and passwords in them are used for Basic authentication.").Required().StringVar(&c.endpoints)
	cmd.Flag("backend.preferred", "Host, or host:port, of the one whose answer clients get. Empty: the first good answer.").StringVar(&c.preferred)
	cmd.Flag("backend.read-timeout", "How long an answer may take.").Default("150s").DurationVar(&c.timeout)
	cmd.Flag("server.http-service-address", "Address to listen on.").Default("127.0.0.1").StringVar(&c.address)
	cmd.Flag("server.http-service-port", "Port to listen on.").Default("8081").IntVar(&c.port)
	cmd.Flag("server.metrics-address", "Address on which metrics are served.").Default("127.0.0.1").StringVar(&c.metricsAddress)
	cmd.Flag("server.metrics-port", "Port on which metrics are served.").Default("9900").IntVar(&c.metricsPort)
	cmd.Flag("server.path-prefix", "What the paths of queries begin with, before /api/v1.").Default("/prometheus").StringVar(&c.prefix)
	cmd.Flag("proxy.compare-responses", "Compare the answers; there must be two installations, one of them preferred.").BoolVar(&c.compare)
	cmd.Flag("proxy.value-comparison-tolerance", "By how much values may differ.").Default("0.000001").Float64Var(&c.tolerance)
	cmd.Flag("proxy.compare-use-relative-error", "Take the tolerance as a part of the value.").BoolVar(&c.relative)
	cmd.Flag("proxy.compare-skip-recent-samples", "Values this new are not compared, as one may have samples that the other waits for.").Default("2m").DurationVar(&c.skipRecent)
	cmd.Flag("proxy.require-exact-error-match", "Errors must have the same text, not only the same status.").BoolVar(&c.exactErrors)
	cmd.Flag("proxy.passthrough-non-registered-routes", "Pass what is no query to the preferred installation.").BoolVar(&c.passOn)
	cmd.Flag("proxy.add-missing-time-parameter-to-instant-queries", "Give instant queries without a time that of the request, so that both are asked for the same.").Default("true").BoolVar(&c.addTime)
	cmd.Flag("proxy.log-slow-query-response-threshold", "Log answers when one takes this much longer than the other; 0: never.").Default("10s").DurationVar(&c.slow)
	cmd.Flag("proxy.max-concurrent-requests", "Requests at once; others are answered 503.").Default("100").IntVar(&c.parallel)
	e.Do(cmd, c.run)
}

func (c *command) run(ctx context.Context) error {
	backends, err := parseBackends(c.endpoints, c.preferred)
	if err != nil {
		return err
	}
	if c.compare && (len(backends) != 2 || c.preferred == "") {
		return errors.New("to compare answers there must be two endpoints, one of them preferred")
	}
	if c.passOn && c.preferred == "" {
		return errors.New("what is no query can only be passed on to a preferred endpoint")
	}
	if c.parallel < 1 {
		return errors.New("proxy.max-concurrent-requests must be 1 or more")
	}
	reg := prometheus.NewRegistry()
	p := newProxy(c, backends, reg)
	queries, err := net.Listen("tcp", net.JoinHostPort(c.address, strconv.Itoa(c.port)))
	if err != nil {
		return fmt.Errorf("listen for queries: %w", err)
	}
	metrics, err := net.Listen("tcp", net.JoinHostPort(c.metricsAddress, strconv.Itoa(c.metricsPort)))
	if err != nil {
		return errors.Join(fmt.Errorf("listen for metrics: %w", err), queries.Close())
	}
	c.Log.Info("queries are sent to all backends", "address", queries.Addr().String(), "metrics", metrics.Addr().String(), "backends", len(backends))
	g, ctx := errgroup.WithContext(ctx)
	serve(ctx, g, queries, p)
	serve(ctx, g, metrics, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	err = g.Wait()
	p.wait()
	return err
}

// serve serves h on l until ctx ends.
func serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerWait}
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
		defer cancel()
		return s.Shutdown(stop)
	})
}

// backend is one installation.
type backend struct {
	name      string // for logs and metrics
	url       *url.URL
	preferred bool
}

func parseBackends(list, preferred string) ([]backend, error) {
	var out []backend
	for text := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errors.New("backend.endpoints must be http or https URLs, separated by commas")
		}
		if slices.ContainsFunc(out, func(b backend) bool { return b.name == u.Host }) {
			return nil, fmt.Errorf("%s stands twice in backend.endpoints", u.Host)
		}
		out = append(out, backend{name: u.Host, url: u})
	}
	found := 0
	for i, b := range out {
		if preferred != "" && (b.name == preferred || b.url.Hostname() == preferred) {
			out[i].preferred = true
			found++
		}
	}
	if preferred != "" && found != 1 {
		return nil, fmt.Errorf("backend.preferred %q is the host of %d endpoints; it must be that of one", preferred, found)
	}
	return out, nil
}
