// Command cluster runs Amphora as a cluster of processes on this machine, with an S3 server for
// the blocks and a Prometheus that scrapes the processes and sends to them. A page shows every
// process and lets one stop, kill, freeze and start it. Ctrl-C stops everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// tenant is whose metrics Prometheus sends.
const tenant = "demo"

func main() {
	listen := flag.String("listen", "127.0.0.1:9900", "loopback address of the page; the processes take the ports above")
	dir := flag.String("dir", "data/cluster", "directory of data and logs; kept for the next start")
	binary := flag.String("binary", "bin/amphora", "the program to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *listen, *dir, *binary, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, dir, binary string, out io.Writer) (err error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("address of the page: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("address of the page: %s is not loopback, and the page can kill processes", host)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("address of the page: %w", err)
	}
	page, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen for the page: %w", err)
	}
	defer func() { _ = page.Close() }() // closed by the server, if it came to that
	log := slog.New(slog.NewTextHandler(out, nil))
	cluster, err := harness.NewCluster(ctx, harness.Options{Dir: dir, Binary: binary, Log: log, Ports: harness.PortsFrom(first + 1)})
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err != nil {
		return err
	}
	prometheus, err := startPrometheus(ctx, log, cluster, dir)
	if prometheus != nil {
		defer func() { err = errors.Join(err, prometheus.Stop()) }()
	}
	if errors.Is(err, harness.ErrNoTool) {
		log.Warn("no Prometheus, so nothing is sent to the cluster", "err", err)
	} else if err != nil {
		return err
	}
	announce(out, listen, cluster)
	return serve(ctx, page, newPage(cluster, prometheus, log))
}

// startPrometheus scrapes every process of the cluster, and sends to the first distributor.
func startPrometheus(ctx context.Context, log *slog.Logger, c *harness.Cluster, dir string) (*harness.Prometheus, error) {
	var targets []string
	for _, n := range c.Nodes() {
		targets = append(targets, strings.TrimPrefix(n.URL(""), "http://"))
	}
	dir, err := filepath.Abs(filepath.Join(dir, "prometheus"))
	if err != nil {
		return nil, fmt.Errorf("find the directory of Prometheus: %w", err)
	}
	return harness.StartPrometheus(ctx, log, harness.PrometheusOptions{
		Dir: dir, Every: 5 * time.Second, Targets: targets, Version2: true, Tenant: tenant,
		PushURL: c.Of("distributor")[0].URL("/api/v1/push"),
	})
}

func announce(out io.Writer, listen string, c *harness.Cluster) {
	distributor, querier := c.Of("distributor")[0], c.Of("querier")[0]
	_, _ = fmt.Fprintf(out, `
  the cluster       http://%s/
  send to           %s
  ask               curl -s -H 'X-Scope-OrgID: %s' '%s' --data-urlencode 'query=up'
  in Grafana        a Prometheus data source with the URL %s and the header X-Scope-OrgID: %s
  Ctrl-C stops everything; its data stays.

`, listen, distributor.URL("/api/v1/push"), tenant, querier.URL("/prometheus/api/v1/query"), querier.URL("/prometheus"), tenant)
}

// serve answers until ctx is done, and then waits for what the page was asked to do.
func serve(ctx context.Context, l net.Listener, p *page) error {
	server := &http.Server{Handler: p.handler(l.Addr().String()), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the page: %w", err)
	case <-ctx.Done():
	}
	quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(quick)
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	p.doing.Wait()
	return err
}
