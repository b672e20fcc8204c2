package distributor

import (
	"testing"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

func TestASeriesIsDefinedOnceHoweverManySamplesAreUnknown(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	s := c.series("up")
	c.mustPush(s)
	for k := range 1000 {
		s.Samples = append(s.Samples, prompb.Sample{Timestamp: s.Samples[0].Timestamp + int64(k), Value: 1})
	}
	g := c.ingesters["ingester-0"]
	g.restart(g.Incarnation()) // it names the reference once for every sample
	if defs := c.mustPush(s); defs != 1 {
		t.Errorf("%d definitions, want 1", defs)
	}
}

func TestADefinitionOfWhichNothingWasStoredIsSentAgain(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	g := c.ingesters["ingester-0"]
	g.set(func(g *ingester) {
		g.answer = func() (frame.Result, bool) {
			ref := frame.MakeRef(0, c.tenants.byID["t1"].table.gen)
			return frame.Result{Kind: errs.Invalid, Message: "over the limit of series", Rejected: 1, Unknown: []frame.Ref{ref}}, true
		}
	})
	if _, err := c.push(c.v1(c.series("up"))); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("got %v, want Invalid", err)
	}
	g.set(func(g *ingester) { g.answer, g.frames = nil, 0 })
	if defs := c.mustPush(c.series("up")); defs != 2 || g.frames != 1 {
		t.Errorf("%d definitions in both pushes, %d frames in the second, want 2 and 1: its series was taken for bound", defs, g.frames)
	}
}

func TestARequestThatNeverFitsIsNotToBeTriedAgain(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
	for _, g := range c.ingesters {
		always(frame.FailedWith(errs.New(errs.BodyTooLarge, "too large for a frame")))(g)
	}
	if _, err := c.push(c.v1(c.series("up"))); errs.KindOf(err) != errs.BodyTooLarge {
		t.Errorf("got %v, want BodyTooLarge", err)
	}
}

// What a push that still routes by an old ring knows about bindings is nothing: only definitions
// and the answers to them say what a reference names.
func TestAnOldRingTakesNoSeriesForBound(t *testing.T) {
	table := newTable(&budget{limit: 10}, 1)
	old := newTopology(1, nil)
	ring := newTopology(2, old)
	h := remotewrite.Hash{Hi: 1, Lo: 2}
	now := placement{hash: h, set: ring.intern([]string{"a", "b", "c"}, 2), verdict: 1}
	var f found
	table.remember(now, ring, 1, &f)
	table.bind([]mark{{f.ref, f.set}}, func(uint32) int { return 0 }, 77, ring.epoch)
	before := placement{hash: h, set: old.intern([]string{"a", "b"}, 2), verdict: 1}
	if _, ok := table.remember(before, old, 1, &f); !ok || f.bound != [boundSlots]uint32{} || f.epoch != old.epoch || f.set != before.set {
		t.Errorf("found %+v, want nothing bound in epoch %d", f, old.epoch)
	}
	if table.remember(now, ring, 1, &f); f.bound != [boundSlots]uint32{77, 0, 0} {
		t.Errorf("the newer ring's bindings are %v", f.bound)
	}
}
