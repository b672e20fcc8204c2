package ingester

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
)

// edit changes the ring of the ingester under test.
func edit(t *testing.T, store kv.Client, f func(*ring.Desc)) {
	t.Helper()
	err := store.CAS(context.Background(), RingKey, func(in any) (any, bool, error) {
		d := ring.GetOrCreateRingDesc(in)
		f(d)
		return d, true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// entry returns what the ring says of the member id.
func entry(t *testing.T, store kv.Client, id string) (ring.InstanceDesc, bool) {
	t.Helper()
	v, err := store.Get(context.Background(), RingKey)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := ring.GetOrCreateRingDesc(v).Ingesters[id]
	return m, ok
}

// withNeighbour starts an ingester that is not alone.
func withNeighbour(t *testing.T, o siteOptions) (*site, kv.Client) {
	t.Helper()
	var store kv.Client
	o.deps = func(d *Deps) {
		store = d.Lifecycler.RingConfig.KVStore.Mock
		edit(t, store, func(d *ring.Desc) {
			n := d.AddIngester("neighbour", "neighbour:1", "", []uint32{7}, ring.ACTIVE, time.Now(), false, time.Time{}, nil)
			n.Timestamp += 24 * 3600
			d.Ingesters["neighbour"] = n
		})
	}
	s := newSite(t, o)
	s.ready(t)
	poll(t, "the neighbour to be seen", func() bool { return s.lifecycler.HealthyInstancesCount() == 2 })
	return s, store
}

func TestLeavingForGoodLeavesNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := withNeighbour(t, siteOptions{})
		a := newSender(s.Ingester)
		a.mustPush(t, "t1", point{metric("m"), base, 1})
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()

		time.Sleep(quietFor - time.Second)
		if m, _ := entry(t, store, "ingester-1"); !m.ReadOnly || m.State != ring.ACTIVE {
			t.Errorf("at first the ring says %s, read-only %v; want that others are to be written to", m.State, m.ReadOnly)
		}
		s.now.Add(time.Minute.Milliseconds())
		a.mustPush(t, "t1", point{metric("m"), base + minute, 2}) // by a distributor that has not heard
		s.now.Add(time.Minute.Milliseconds())
		time.Sleep(quietFor + listPause + time.Second)
		if _, ok := entry(t, store, "ingester-1"); ok || shippedBlocksOf(t, s.bucket, "t1") != 1 {
			t.Errorf("still in the ring: %v, blocks in the bucket: %d", ok, shippedBlocksOf(t, s.bucket, "t1"))
		}
		if !s.readable.Load() {
			t.Error("queries are refused although some querier may not have heard")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s.readable.Load() {
			t.Error("answers after the end")
		}
	})
}

func TestAnIngesterThatCannotShipDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &brokenBucket{Bucket: objstore.NewInMemBucket(), broken: true}
		s, store := withNeighbour(t, siteOptions{bucket: b})
		newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
		if err := s.PrepareShutdown(true); err != nil {
			t.Fatal(err)
		}
		if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("stopped with %v, want that the rest is not shipped", err)
		}
		if m, ok := entry(t, store, "ingester-1"); !ok || !m.ReadOnly || len(m.Tokens) == 0 {
			t.Errorf("the ring does not show that samples are missing: %+v", m)
		}
		if _, err := os.Stat(filepath.Join(s.dir, prepareShutdownFile)); err != nil {
			t.Errorf("the next start does not know that this one was to be the last: %v", err)
		}
	})
}

func TestStoppingForAWhileKeepsThePlace(t *testing.T) {
	for unregister, wantRelieved := range map[bool]bool{false: false, true: true} {
		synctest.Test(t, func(t *testing.T) {
			s, store := withNeighbour(t, siteOptions{})
			newSender(s.Ingester).mustPush(t, "t1", point{metric("m"), base, 1})
			if err := s.SetUnregisterOnShutdown(unregister); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
				t.Fatal(err)
			}
			m, ok := entry(t, store, "ingester-1")
			if !ok || m.State != ring.LEAVING || members.Relieved(m) != wantRelieved || len(m.Tokens) == 0 {
				t.Errorf("unregister %v: the ring has %+v", unregister, m)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("a stop took %s", took)
			}
		})
	}
}

func TestAnIngesterThatWasRelievedTakesItsSeriesBack(t *testing.T) {
	var store kv.Client
	was := func(versions ring.InstanceVersions) func(*Deps) {
		return func(d *Deps) {
			store = d.Lifecycler.RingConfig.KVStore.Mock
			edit(t, store, func(d *ring.Desc) {
				d.AddIngester("ingester-1", "127.0.0.9:1", "", []uint32{1, 2, 3, 4}, ring.LEAVING, time.Now().Add(-time.Hour), true, time.Now().Add(-30*time.Minute), versions)
			})
		}
	}
	s := newSite(t, siteOptions{deps: was(ring.InstanceVersions{1: 1})})
	poll(t, "the mark to go", func() bool { m, _ := entry(t, store, "ingester-1"); return !m.ReadOnly })
	m, _ := entry(t, store, "ingester-1")
	if time.Since(time.Unix(m.ReadOnlyUpdatedTimestamp, 0)) > time.Minute || m.State != ring.ACTIVE || m.Addr == "127.0.0.9:1" || len(m.Tokens) != 4 {
		t.Errorf("the ring has %+v", m)
	}
	if !s.ReadOnlySince().IsZero() {
		t.Error("still read-only")
	}
	s = newSite(t, siteOptions{deps: was(nil)}) // an operator did it
	s.ready(t)
	if s.ReadOnlySince().IsZero() {
		t.Error("a restart ended what an operator had asked for")
	}
}

func TestBeingCutOffDoesNotUndoWhatAnOperatorAsksFor(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.ready(t)
	cut := func(on bool) error { return s.SetCutOff(t.Context(), on) }
	operator := func(on bool) error { return s.SetReadOnly(t.Context(), on) }
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"cut off", func() error { return cut(true) }, true},
		{"cut off still", func() error { return cut(true) }, true},
		{"seen again", func() error { return cut(false) }, false},
		{"cut off again", func() error { return cut(true) }, true},
		{"operator begins", func() error { return operator(true) }, true},
		{"seen again, operator waits", func() error { return cut(false) }, true},
		{"cut off, operator waits", func() error { return cut(true) }, true},
		{"seen, operator waits still", func() error { return cut(false) }, true},
		{"operator ends", func() error { return operator(false) }, false},
	} {
		if err := step.do(); err != nil || s.ReadOnlySince().IsZero() == step.want {
			t.Errorf("%s: %v, read-only since %s, want it %v", step.name, err, s.ReadOnlySince(), step.want)
		}
	}
}
