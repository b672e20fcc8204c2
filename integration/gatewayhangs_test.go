package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// balancer gives connections to nodes in turn, of those that say that they are ready, as one at the level of connections
// does. Connections that there are it leaves alone.
type balancer struct {
	address string
	nodes   []*harness.Node
	up      []atomic.Bool
	next    atomic.Int64
	open    atomic.Int64 // among how many of the nodes connections are given
}

func newBalancer(ctx context.Context, t *testing.T, nodes ...*harness.Node) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &balancer{address: l.Addr().String(), nodes: nodes, up: make([]atomic.Bool, len(nodes))}
	b.open.Store(int64(len(nodes)))
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // who is stopped at the end still sends what it has
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); work.Wait() })
	for i, n := range nodes {
		b.up[i].Store(true)
		work.Go(func() {
			for ctx.Err() == nil {
				ok := n.Ready(ctx) == nil
				b.up[i].Store(ok)
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { b.serve(ctx, c) })
		}
	})
	return b
}

// serve joins a connection to a node.
func (b *balancer) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	for range b.nodes {
		i := int(b.next.Add(1) % b.open.Load())
		if !b.up[i].Load() {
			continue
		}
		to, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(b.nodes[i].URL(""), "http://"))
		if err != nil {
			continue
		}
		defer to.Close()
		ctx, cancel := context.WithCancel(ctx)
		go func() { defer cancel(); _, _ = io.Copy(to, c) }()
		go func() { defer cancel(); _, _ = io.Copy(c, to) }()
		<-ctx.Done()
		return
	}
}

// knows waits until connections are given to node i, or not any more.
func (b *balancer) knows(ctx context.Context, t *testing.T, i int, up bool) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		if b.up[i].Load() != up {
			return fmt.Errorf("%s is taken for ready: %t", b.nodes[i].Spec.Name, !up)
		}
		return nil
	}))
}

// TestAGatewayThatHangsLosesNothing freezes one of two gateways behind a balancer, to which a Prometheus and a journal
// write and of which a client reads. What it had in its hands is sent again by others, and by itself when it goes on.
func TestAGatewayThatHangsLosesNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1,
		Flags: []string{"-distributor.ingestion-rate-limit=0", "-ingester.ring.min-ready-duration=0s"},
		Nodes: []harness.Spec{{Name: "services", Target: "ingester,store-gateway,distributor,querier,compactor"}}})
	services := c.Node("services")
	var gates []*harness.Node
	for _, name := range []string{"gateway-a", "gateway-b"} {
		g, err := c.Add(harness.Spec{Name: name, Target: "gateway", Flags: []string{"-gateway.upstreams=distributor=" + services.URL("") + ",querier=" + services.URL("")}})
		must(t, err)
		must(t, g.WaitReady(ctx))
		gates = append(gates, g)
	}
	door := newBalancer(ctx, t, gates...)
	base := "http://" + door.address
	door.open.Store(1) // all connections are to the one that will hang, until it does

	const watcher = "watcher"
	free, err := new(harness.Ports).Free(1)
	must(t, err)
	own := fmt.Sprintf("127.0.0.1:%d", free[0])
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Name: watcher, Tenant: watcher, Dir: t.TempDir(), Port: free[0],
		Every: 250 * time.Millisecond, Targets: []string{own}, PushURL: base + "/api/v1/push", PushTimeout: 3 * time.Second})
	t.Cleanup(func() {
		if p != nil {
			must(t, p.Stop())
		}
	})
	harness.Need(t, err)
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		got, err := matrix(ctx, gates[1].URL(""), watcher, `up`, time.Now().UnixMilli())
		if err == nil && len(got) == 0 {
			err = errors.New("nothing has come")
		}
		return err
	}))
	begin := time.Now()

	j := newJournal("team-a", func() []string { return []string{base} })
	load, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { j.run(load, 6) })
	defer func() { stop(); work.Wait() }()
	acknowledged := func(more int) {
		t.Helper()
		from, _ := j.count()
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			if n, _ := j.count(); n < from+more {
				return fmt.Errorf("%d samples acknowledged, want %d", n, from+more)
			}
			return nil
		}))
	}
	acknowledged(6000)
	j.resetGap()

	must(t, gates[0].Signal(syscall.SIGSTOP))
	hung := time.Now()
	door.open.Store(2)
	other := j.audited(ctx, func() []string { return []string{gates[1].URL("")} }) // a client that has both addresses, and has gone on
	door.knows(ctx, t, 0, false)
	through := j.audited(ctx, func() []string { return []string{base} })
	acknowledged(30_000)
	t.Logf("while a gateway hung there was no acknowledgement for %s at most", j.gap().Round(time.Millisecond))
	frozenFor := func(d time.Duration) { // longer than clients wait, who then send again what the gateway still has
		t.Helper()
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			if sent := scrape(ctx, t, "http://"+own+"/metrics", "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"); sent < float64(hung.Add(d).Unix()) {
				return fmt.Errorf("Prometheus has sent until %s", seconds(int64(sent*1000)))
			}
			return nil
		}))
	}
	frozenFor(12 * time.Second)
	must(t, gates[0].Signal(syscall.SIGCONT))
	door.knows(ctx, t, 0, true)
	acknowledged(6000)
	other().good(t)
	through().good(t)
	end := time.Now().UnixMilli()
	stop()
	work.Wait()
	drained(ctx, t, "http://"+own, end)
	again := scrape(ctx, t, "http://"+own+"/metrics", "prometheus_remote_storage_samples_retried_total")
	if t.Logf("Prometheus sent %g samples again", again); again == 0 {
		t.Error("Prometheus had nothing under way when the gateway hung")
	}
	if _, given := j.count(); given > 0 {
		t.Errorf("%d samples were given up", given)
	}
	j.verify(ctx, t, gates[0].URL(""))
	for _, q := range []string{"up", "prometheus_http_requests_total", "go_goroutines", "prometheus_tsdb_head_samples_appended_total"} {
		params := url.Values{"query": {fmt.Sprintf("%s[%dms]", q, end-begin.UnixMilli())}, "time": {seconds(end)}}
		want, err := ask(ctx, "http://"+own, "", "query", params)
		must(t, err)
		got, err := ask(ctx, gates[0].URL("/prometheus"), watcher, "query", params)
		must(t, err)
		if d := differ(got, want, watcher); d != "" || len(want.Data.Result) == 0 {
			t.Errorf("%s of %d series: %s", q, len(want.Data.Result), d)
		}
	}
}
