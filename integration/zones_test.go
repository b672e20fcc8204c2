package integration

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// inZone returns the nodes of a zone.
func inZone(c *harness.Cluster, zone string) []*harness.Node {
	var out []*harness.Node
	for _, n := range c.Nodes() {
		if n.Zone == zone {
			out = append(out, n)
		}
	}
	return out
}

// all does something to several nodes at once.
func all(t *testing.T, nodes []*harness.Node, do func(*harness.Node) error) {
	t.Helper()
	problems := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { problems[i] = do(n) })
	}
	wg.Wait()
	must(t, errors.Join(problems...))
}

// TestEveryProcessRestartsUnderLoad updates a cluster as an operator does: zone by zone, all
// processes of a zone at once, the next zone when the last is ready. Readers and writers see nothing
// of it.
func TestEveryProcessRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t)
	pause(ctx, t, 2*time.Second)
	j.resetGap()
	before, err := ringOf(ctx, c.Nodes()[0].URL("/ingester/ring"))
	must(t, err)
	begin := time.Now()
	for _, zone := range []string{"a", "b", "c"} {
		all(t, inZone(c, zone), func(n *harness.Node) error { return errors.Join(n.Restart(), n.WaitReady(ctx)) })
		settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
		t.Logf("zone %s done after %s", zone, time.Since(begin).Round(time.Millisecond))
	}
	pause(ctx, t, 2*time.Second)
	gap := j.gap()
	end().good(t)
	if gap > 10*time.Second {
		t.Errorf("no push was acknowledged for %s", gap)
	}
	after, err := ringOf(ctx, c.Nodes()[0].URL("/ingester/ring"))
	must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Error("the ring has changed: series have moved")
	}
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

// TestZonesAndIngestersFail kills and freezes what a cluster of three zones with two ingesters each
// survives, and a bit more.
func TestZonesAndIngestersFail(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t)
	for _, zone := range []string{"a", "b", "c"} {
		_, err := c.Add(harness.Spec{Name: "ingester-" + zone + "2", Target: "ingester", Zone: zone})
		must(t, err)
	}
	must(t, c.WaitReady(ctx))
	everybody := []string{"ingester-a", "ingester-b", "ingester-c", "ingester-a2", "ingester-b2", "ingester-c2"}
	settled(ctx, t, c.Nodes(), everybody...)
	pause(ctx, t, 2*time.Second)
	j.resetGap()

	// Frozen, an ingester keeps its connections and answers nothing.
	must(t, c.Node("ingester-b2").Signal(syscall.SIGSTOP))
	pause(ctx, t, 12*time.Second)
	must(t, c.Node("ingester-b2").Signal(syscall.SIGCONT))
	t.Logf("one frozen: longest gap %s", j.gap())
	pause(ctx, t, 2*time.Second)

	all(t, inZone(c, "a"), func(n *harness.Node) error { return n.Kill() })
	pause(ctx, t, 6*time.Second)
	gap := j.gap()
	a := end()
	a.good(t)
	if gap > 10*time.Second || a.slowest > 10*time.Second { // who waits for the frozen one takes longer
		t.Errorf("no push was acknowledged for %s, a read took %s", gap, a.slowest)
	}
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	querier, distributor := c.Node("querier-2").URL(""), c.Node("distributor-2").URL("")
	j.verify(ctx, t, querier)

	// One more, of another zone: only what was on it and on the lost zone is out of reach.
	must(t, c.Node("ingester-b").Kill())
	stored, refused := 0, 0
	for i := range 40 {
		r := pushV1(ctx, t, distributor, "team-b", floats(time.Now(), float64(i), "__name__", "single", "i", fmt.Sprint(i)))
		switch {
		case r.status == 200:
			stored++
		case r.status == 503 && strings.Contains(r.body, "of 3 ingesters") || strings.Contains(r.body, "replicas required"):
			refused++
		default:
			t.Errorf("push answered %s", r)
		}
	}
	if stored == 0 || refused == 0 {
		t.Errorf("%d pushes stored, %d refused; want some of both", stored, refused)
	}
	query := querier + "/prometheus/api/v1/query?" + url.Values{"query": {"count(single)"}}.Encode()
	if r := call(ctx, t, http.MethodGet, query, nil, "X-Scope-OrgID", "team-b"); r.status != 503 || !strings.Contains(r.body, "ingesters") {
		t.Errorf("a query that would have a gap answered %s", r)
	}
	must(t, c.Node("ingester-b").Start())
	must(t, c.Node("ingester-b").WaitReady(ctx))
	eventually(ctx, t, "the query to be answered", func() error {
		r := call(ctx, t, http.MethodGet, query, nil, "X-Scope-OrgID", "team-b")
		if r.status != 200 {
			return errors.New(r.String())
		}
		return nil
	})
	for _, n := range inZone(c, "a") {
		must(t, n.Start())
	}
	must(t, c.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), everybody...)
	j.verify(ctx, t, c.Node("querier-1").URL(""))
}
