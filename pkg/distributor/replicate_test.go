package distributor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// always makes g answer r.
func always(r frame.Result) func(*ingester) {
	return func(g *ingester) { g.answer = func() (frame.Result, bool) { return r, true } }
}

func TestQuorum(t *testing.T) {
	ok := func(*ingester) {}
	down := always(frame.Result{Outcome: frame.Failed, Kind: errs.Unavailable, Message: "disk full"})
	soft := always(frame.Result{Kind: errs.Invalid, Message: "sample is out of order", Rejected: 1})
	forgetful := always(frame.Result{Outcome: frame.UnknownRefs, Unknown: []frame.Ref{1}})
	for _, tc := range []struct {
		name  string
		modes [3]func(*ingester)
		kind  errs.Kind
		text  string // of the error, empty for none
	}{
		{"all store", [3]func(*ingester){ok, ok, ok}, 0, ""},
		{"one fails", [3]func(*ingester){ok, down, ok}, 0, ""},
		{"two fail", [3]func(*ingester){down, ok, down}, errs.Unavailable, "2 of 3 ingesters of a series did not store it, 2 must: disk full"},
		{"one refuses", [3]func(*ingester){soft, ok, ok}, 0, ""},
		{"two refuse", [3]func(*ingester){soft, ok, soft}, errs.Invalid, "out of order"},
		{"all refuse", [3]func(*ingester){soft, soft, soft}, errs.Invalid, "out of order"},
		{"one refuses, one fails", [3]func(*ingester){soft, down, ok}, errs.Invalid, "out of order"},
		{"one refuses, two fail", [3]func(*ingester){soft, down, down}, errs.Unavailable, "disk full"},
		{"one never knows", [3]func(*ingester){forgetful, ok, ok}, 0, ""},
		{"two never know", [3]func(*ingester){forgetful, forgetful, ok}, errs.Unavailable, "does not know"},
	} {
		for _, async := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/async=%t", tc.name, async), func(t *testing.T) {
				c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
				open := make(chan struct{})
				close(open)
				for i, m := range tc.modes {
					g := c.ingesters[fmt.Sprintf("ingester-%d", i)]
					g.set(m)
					if async {
						g.set(func(g *ingester) { g.hold = open })
					}
				}
				w, err := c.push(c.v1(c.series("up,a=1"), c.series("up,a=2")))
				if tc.text == "" {
					if err != nil || w.Samples != 2 {
						t.Errorf("got %+v, %v, want success", w, err)
					}
				} else if errs.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("got %v %v, want %v with %q", errs.KindOf(err), err, tc.kind, tc.text)
				}
				if tc.kind == errs.Invalid && w.Samples != 1 {
					t.Errorf("written = %+v, want 1 sample", w)
				}
				c.await(func() bool { return c.tenants.byID["t1"].pushes.Load() == 0 })
			})
		}
	}
}

func TestASlowReplicaDelaysNobody(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
	hold := make(chan struct{})
	slow := c.ingesters["ingester-1"]
	slow.set(func(g *ingester) { g.hold = hold })
	for i := range 20 {
		c.mustPush(c.series(fmt.Sprintf("up,i=%d", i)))
	}
	if _, stored := slow.read(); len(stored) != 0 {
		t.Fatalf("the slow replica answered already: %v", stored)
	}
	slow.set(func(g *ingester) { g.hold = nil })
	close(hold)
	c.await(func() bool { return c.tenants.byID["t1"].pushes.Load() == 0 })
	_, stored := slow.read()
	for i := range 20 {
		if len(stored[fmt.Sprintf(`t1 {__name__="up", i="%d"}`, i)]) != 1 {
			t.Errorf("series %d did not arrive whole at the slow replica: %v", i, stored)
		}
	}
	if defs := c.mustPush(c.series("up,i=3")); defs != 0 {
		t.Errorf("%d definitions, want 0: late answers bind, too", defs)
	}
}

func TestAReplicaThatNeverAnswersTimesOut(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
	c.cfg.RemoteTimeout = 20 * time.Millisecond
	hold := make(chan struct{})
	c.ingesters["ingester-0"].set(func(g *ingester) { g.hold = hold })
	c.ingesters["ingester-1"].set(func(g *ingester) { g.hold = hold })
	_, err := c.push(c.v1(c.series("up")))
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("got %v, want Unavailable", err)
	}
	c.cfg.RemoteTimeout = time.Minute // a machine that stands still meanwhile would know two reasons
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Push(ctx, "t1", c.v1(c.series("up"))); errs.KindOf(err) != errs.Canceled {
		t.Errorf("client went away: got %v, want Canceled", err)
	}
	close(hold)
	c.await(func() bool { return c.tenants.byID["t1"].pushes.Load() == 0 })
}

func TestForgottenReferencesAreDefinedAgain(t *testing.T) {
	for _, known := range []bool{true, false} { // the stream's end is noticed before the push, or not
		c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
		series := remotewritetest.Series(100)
		req := &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.V2(series, 1, c.clock.Load())}
		if _, err := c.push(req); err != nil {
			t.Fatal(err)
		}
		c.defs()
		lost := c.ingesters["ingester-2"]
		if known {
			lost.restart(77)
		} else {
			lost.restart(lost.Incarnation())
		}
		for round, want := range []int{100, 0} {
			if _, err := c.push(req); err != nil {
				t.Fatal(err)
			}
			if defs := c.defs(); defs != want {
				t.Errorf("known=%t round %d: %d definitions, want %d", known, round, defs, want)
			}
		}
		if _, stored := lost.read(); len(stored["t1 "+series[7].String()]) != 3 {
			t.Errorf("known=%t: the restarted ingester lacks samples", known)
		}
	}
}

func TestLateUnknownReferencesAreDefinedByTheNextPush(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
	c.mustPush(c.series("up"))
	slow := c.ingesters["ingester-1"]
	hold := make(chan struct{})
	slow.set(func(g *ingester) { g.hold = hold })
	slow.restart(slow.Incarnation())
	c.mustPush(c.series("up"))
	slow.set(func(g *ingester) { g.hold = nil })
	close(hold)
	c.await(func() bool { return c.tenants.byID["t1"].pushes.Load() == 0 })
	if defs := c.mustPush(c.series("up")); defs != 1 {
		t.Errorf("%d definitions, want 1", defs)
	}
}

func TestTooFewIngestersAreUnavailable(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 1})
	_, err := c.push(c.v1(c.series("up")))
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "at least 2 live replicas required") {
		t.Errorf("got %v, want Unavailable", err)
	}
	c = newCluster(t, clusterOptions{replicas: 3, instances: 3})
	delete(c.ingesters, "ingester-0")
	c.mustPush(c.series("up"))
	delete(c.ingesters, "ingester-1")
	if _, err := c.push(c.v1(c.series("up"))); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "no ingester at") {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestRingChangesMoveOnlyWhatMust(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 5})
	series := remotewritetest.Series(1000)
	req := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series, 1, c.clock.Load())}
	push := func() int {
		t.Helper()
		if _, err := c.push(req); err != nil {
			t.Fatal(err)
		}
		return c.defs()
	}
	push()
	state := func(i string, s ring.InstanceState) func(*ring.Desc) {
		return func(d *ring.Desc) {
			in := d.Ingesters[i]
			in.State = s
			d.Ingesters[i] = in
		}
	}
	seen := func(i string, s ring.InstanceState) func() bool {
		return func() bool { got, err := c.ring.GetInstanceState(i); return err == nil && got == s }
	}
	c.change(state("ingester-4", ring.LEAVING), seen("ingester-4", ring.LEAVING))
	frames := func() (n int) {
		c.ingesters["ingester-4"].set(func(g *ingester) { n = g.frames })
		return n
	}
	before := frames()
	if defs := push(); defs != 0 || frames() != before {
		t.Errorf("one left: %d definitions and %d frames to it, want none", defs, frames()-before)
	}
	c.change(state("ingester-4", ring.ACTIVE), seen("ingester-4", ring.ACTIVE))
	if defs := push(); defs == 0 || defs > 1000 {
		t.Errorf("one came back: %d definitions, want only its own", defs)
	}
	c.change(func(d *ring.Desc) { c.addTo(d, 5, false) }, func() bool { return c.ring.InstancesCount() == 6 })
	if defs := push(); defs == 0 || defs > 1000 {
		t.Errorf("one joined: %d definitions, want only its own", defs)
	}
	if defs := push(); defs != 0 {
		t.Errorf("afterwards: %d definitions, want 0", defs)
	}
}

func TestShuffleShardsBoundATenantsIngesters(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 6})
	c.limit(func(v limits.View) limits.View { return limits.IngestionTenantShardSize.With(v, 2) })
	if _, err := c.push(&remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(remotewritetest.Series(300), 1, c.clock.Load())}); err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, g := range c.ingesters {
		if _, stored := g.read(); len(stored) > 0 {
			used++
		}
	}
	if used != 2 {
		t.Errorf("%d ingesters used, want 2", used)
	}
}

func TestConcurrentPushesLoseNothing(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 6, zones: true})
	open := make(chan struct{})
	close(open)
	for _, g := range c.ingesters {
		g.set(func(g *ingester) { g.hold = open })
	}
	series := remotewritetest.Series(400)
	const pushers, rounds = 8, 15
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for r := range rounds {
				lo := (p * 37 * (r + 1)) % 300
				req := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series[lo:lo+100], 1, c.clock.Load())}
				if r%2 == 1 {
					req = &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.V2(series[lo:lo+100], 1, c.clock.Load())}
				}
				if w, err := c.push(req); err != nil || w.Samples != 100 {
					t.Errorf("push: %+v, %v", w, err)
				}
				clear(req.Body) // nobody reads it any more
				if p == 0 && r%5 == 4 {
					g := c.ingesters["ingester-3"]
					g.restart(1000 + uint32(r))
				}
			}
		})
	}
	wg.Wait()
	c.await(func() bool { return c.tenants.byID["t1"].pushes.Load() == 0 })
	known := map[string]bool{}
	for _, ls := range series {
		known["t1 "+ls.String()] = true
	}
	total := 0
	for _, g := range c.ingesters {
		_, stored := g.read()
		for s, samples := range stored {
			if !known[s] {
				t.Fatalf("%s was never sent", s)
			}
			total += len(samples)
		}
	}
	// An ingester that lost its bindings behind a quorum may miss a push, no other does.
	if most := 3 * pushers * rounds * 100; total > most || total < most*95/100 {
		t.Errorf("%d samples stored, want %d", total, most)
	}
}
