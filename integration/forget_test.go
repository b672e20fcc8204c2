package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAnIngesterIsForgottenAndComesBack loses an ingester for longer than others wait for it, and
// finds it again at another address. A stranger cannot take its name.
func TestAnIngesterIsForgottenAndComesBack(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t, "-ingester.ring.heartbeat-timeout=10s", "-ingester.ring.auto-forget-unhealthy-periods=1")
	lost := c.Node("ingester-a")
	other, err := c.Add(harness.Spec{Name: "ingester-a2", Target: "ingester", Zone: "a"})
	must(t, err)
	must(t, other.WaitReady(ctx))
	everybody := []string{"ingester-a", "ingester-b", "ingester-c", "ingester-a2"}
	settled(ctx, t, c.Nodes(), everybody...)
	pause(ctx, t, time.Second)
	end().good(t) // later on, two are away at once
	held := func() float64 { return scrape(ctx, t, other.URL("/metrics"), "amphora_ingester_memory_series") }
	before := held() // about half of the series of two writers who ended: by their hashes, so that it may be more or less
	must(t, between(before, 60, 140))
	load, stop := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() { j.run(load, 1) })
	defer func() { stop(); writing.Wait() }()
	audited := j.audited(ctx, frontDoor(ctx, c, "querier"))
	j.resetGap()

	must(t, lost.Kill())
	pause(ctx, t, 9*time.Second)
	relieved := func(n *harness.Node) error {
		r := call(ctx, t, http.MethodGet, n.URL("/ingester/ring"), nil, "Accept", "application/json")
		if !strings.Contains(r.body, "Reads count it as missing until") {
			return errors.New("nobody is relieved")
		}
		return nil
	}
	for _, n := range c.Running() {
		eventually(ctx, t, n.Spec.Name+" to know that the lost one was relieved", func() error { return relieved(n) })
	}
	eventually(ctx, t, "the other of its zone to hold all series that are written", func() error {
		return between(held(), before+100, 300) // all of the third writer
	})

	audited().good(t)
	// Its samples may be in one other replica only.
	must(t, c.Node("ingester-b").Kill())
	r := call(ctx, t, http.MethodGet, c.Node("querier-1").URL("/prometheus/api/v1/query?query=journal"), nil, "X-Scope-OrgID", "team-a")
	if r.status != 503 {
		t.Errorf("a query that may have a gap answered %s", r)
	}
	must(t, c.Node("ingester-b").Start())
	must(t, c.Node("ingester-b").WaitReady(ctx))

	must(t, c.Move(lost))
	must(t, lost.Start())
	must(t, lost.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), everybody...)
	members, err := ringOf(ctx, c.Node("querier-1").URL("/ingester/ring"))
	must(t, err)
	if at := members["ingester-a"].Address; !strings.HasSuffix(at, fmt.Sprint(":", lost.GRPC)) {
		t.Errorf("the ring has the lost one at %s, it is at port %d", at, lost.GRPC)
	}
	eventually(ctx, t, "it to be written to again", func() error {
		if n := scrape(ctx, t, lost.URL("/metrics"), "amphora_ingester_ingested_samples_total"); n == 0 {
			return errors.New("no samples")
		}
		return nil
	})

	stranger, err := c.Add(harness.Spec{Name: "stranger", Target: "ingester", Zone: "b", Flags: []string{"-ingester.ring.instance-id=ingester-b"}})
	must(t, err)
	select {
	case <-stranger.Done():
		if log := stranger.Tail(); !strings.Contains(log, "living ingester") || !strings.Contains(log, "instance_id") {
			t.Errorf("the stranger ended with\n%s", log)
		}
	case <-time.After(30 * time.Second):
		t.Error("a stranger runs under a name that is taken")
	}
	stop()
	writing.Wait()
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, j.gap())
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

// TestAnOperatorForgetsMembers presses the button of the pages of rings.
func TestAnOperatorForgetsMembers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	nodes := []harness.Spec{{Name: "front", Target: "distributor,querier"}, {Name: "distributor-2", Target: "distributor"}}
	for k := range 4 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprintf("ingester-%d", k), Target: "ingester"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true, Flags: []string{
		"-ingester.ring.heartbeat-period=1s", "-ingester.ring.heartbeat-timeout=5s", "-distributor.ring.heartbeat-period=1s", "-distributor.ring.heartbeat-timeout=5s"}})
	front := c.Node("front")
	settled(ctx, t, c.Nodes(), "ingester-0", "ingester-1", "ingester-2", "ingester-3")
	forget := func(ring, id string) reply {
		return call(ctx, t, http.MethodPost, front.URL("/"+ring+"/ring"), []byte(url.Values{"forget": {id}}.Encode()), "Content-Type", "application/x-www-form-urlencoded", "Origin", front.URL(""))
	}
	if r := forget("ingester", "ingester-3"); r.status != http.StatusConflict {
		t.Errorf("to forget one that lives answered %s", r)
	}
	if r := forget("ingester", "nobody"); r.status != http.StatusNotFound {
		t.Errorf("to forget nobody answered %s", r)
	}
	must(t, c.Node("ingester-3").Kill())
	must(t, c.Node("distributor-2").Kill())
	eventually(ctx, t, "the silent ingester to be relieved", func() error {
		if r := forget("ingester", "ingester-3"); r.status >= 400 {
			return errors.New(r.String())
		}
		return nil
	})
	member := func(ring, id string) (ringMember, bool) {
		all, err := ringOf(ctx, front.URL("/"+ring+"/ring"))
		must(t, err)
		m, ok := all[id]
		return m, ok
	}
	eventually(ctx, t, "the ring to show it", func() error {
		if m, ok := member("ingester", "ingester-3"); !ok || !m.ReadOnly {
			return fmt.Errorf("%+v, %v", m, ok)
		}
		return nil
	})
	stored(t, pushV1(ctx, t, front.URL(""), "team-a", floats(time.Now(), 1, "__name__", "up")))
	for ring, id := range map[string]string{"ingester": "ingester-3", "distributor": "distributor-2"} {
		if r := forget(ring, id); r.status >= 400 {
			t.Errorf("%s: %s", id, r)
		}
		eventually(ctx, t, id+" to be gone", func() error {
			if m, ok := member(ring, id); ok {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
	}
	has(ctx, t, front.URL(""), "team-a", "up", 1)
	r := call(ctx, t, http.MethodGet, front.URL("/ingester/partition-ring"), nil, "Accept", "application/json")
	if r.status != http.StatusOK || !strings.HasPrefix(strings.TrimSpace(r.body), "{") {
		t.Errorf("/ingester/partition-ring answered %s", r)
	}
}
