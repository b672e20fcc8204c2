package members

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/seeds"
)

// kept is how long reads look to members for samples, and shippedBy how old a sample is by then at
// most when those who are alive have shipped it.
const (
	kept      = 13 * time.Hour
	shippedBy = kept - 30*time.Minute
)

// heldStore is a store of one ring that shows changes when it is told to.
type heldStore struct {
	kv.Client
	desc *ring.Desc
	show func(any) bool
}

func (h *heldStore) Get(context.Context, string) (any, error) { return h.desc.Clone(), nil }

func (h *heldStore) WatchKey(ctx context.Context, _ string, f func(any) bool) {
	h.show = f
	<-ctx.Done()
}

// body is a process behind an entry of the ring.
type body struct {
	alive bool
	told  bool // an operator made it read-only
}

// written is a sample that was acknowledged.
type written struct {
	tenant string
	size   int // of the tenant's shard
	at     time.Time
	by     []string // who has it
}

// town is a ring with processes that come and go, and what they were given.
type town struct {
	t      *testing.T
	rnd    *rand.Rand
	rules  Rules
	store  *heldStore
	ring   ring.ReadRing
	zones  int // in which members join
	bodies map[string]*body
	acked  []written
	made   int
	steps  []string
	reads  struct{ whole, refused int }
}

func newTown(t *testing.T, rnd *rand.Rand) *town {
	t.Helper()
	w := &town{t: t, rnd: rnd, zones: 3 + rnd.IntN(3), bodies: map[string]*body{}, store: &heldStore{desc: ring.NewDesc()},
		rules: Rules{HeartbeatTimeout: time.Minute, Forget: 10 * time.Minute, Keep: kept, Replicas: 3, Zones: rnd.IntN(2) == 0}}
	for range w.zones + rnd.IntN(5) {
		w.join()
	}
	for _, d := range w.store.desc.Ingesters { // they have been there for long
		d.RegisteredTimestamp = time.Now().Add(-2 * kept).Unix()
		w.store.desc.Ingesters[d.Id] = d
	}
	r, err := ring.New(ring.Config{KVStore: kv.Config{Mock: w.store}, HeartbeatTimeout: time.Minute, ReplicationFactor: 3,
		ZoneAwarenessEnabled: w.rules.Zones}, "test", "ring", log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), r) })
	if w.ring = r; w.rules.Zones {
		w.ring = Steady(r)
	}
	synctest.Wait()
	return w
}

func (w *town) note(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf("%s: ", time.Now().Format("02 15:04:05"))+fmt.Sprintf(format, args...))
}

// join brings a new member, as the lifecycler enters it.
func (w *town) join() {
	zone := "-"
	if w.rules.Zones {
		zone = string(rune('a' + w.made%w.zones))
	}
	id := fmt.Sprintf("%s%d", zone, w.made)
	w.made++
	b := newBalancedTokens(id, zone, w.rules.Zones)
	b.seen = w.store.desc.Ingesters
	var taken []uint32
	for _, d := range w.store.desc.Ingesters {
		taken = append(taken, d.Tokens...)
	}
	now := time.Now().Unix()
	w.store.desc.Ingesters[id] = ring.InstanceDesc{Id: id, Addr: id + ":1", Zone: zone, State: ring.ACTIVE, Timestamp: now,
		RegisteredTimestamp: now, Tokens: b.GenerateTokens(16, taken)}
	w.bodies[id] = &body{alive: true}
	w.note("%s joins", id)
}

// pass lets time pass; who is alive says so every half minute, which nobody looks at if much passes, and
// looks after the ring.
func (w *town) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(max(30*time.Second, time.Until(end)/4))
		for id, b := range w.bodies {
			if b.alive {
				w.beat(id)
			}
		}
		now := time.Now()
		if v := w.rules.judge(w.store.desc, now); !v.empty() {
			w.note("%v are relieved, %v removed", v.relieve, v.remove)
			w.rules.apply(v, w.store.desc)
			for _, id := range v.remove {
				delete(w.bodies, id)
			}
		}
	}
	w.show()
}

func (w *town) beat(id string) {
	d := w.store.desc.Ingesters[id]
	d.Timestamp = time.Now().Unix()
	w.store.desc.Ingesters[id] = d
}

func (w *town) show() {
	w.store.show(w.store.desc.Clone())
	synctest.Wait()
}

func (w *town) setReadOnly(id string, on bool) {
	d := w.store.desc.Ingesters[id]
	d.ReadOnly, d.ReadOnlyUpdatedTimestamp, d.Versions, d.Timestamp = on, time.Now().Unix(), nil, time.Now().Unix()
	w.store.desc.Ingesters[id] = d
}

// one picks a member for which ok holds.
func (w *town) one(ok func(id string, b *body) bool) (string, bool) {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(w.bodies)) {
		if ok(id, w.bodies[id]) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "", false
	}
	return ids[w.rnd.IntN(len(ids))], true
}

func alive(_ string, b *body) bool { return b.alive }
func dead(_ string, b *body) bool  { return !b.alive }

// step lets something happen to the members.
func (w *town) step() {
	switch w.rnd.IntN(12) {
	case 0:
		if len(w.bodies) < 3*w.zones {
			w.join()
		}
	case 1:
		if id, ok := w.one(alive); ok {
			w.note("%s dies", id)
			w.bodies[id].alive = false
		}
	case 2, 3:
		if id, ok := w.one(dead); ok {
			w.note("%s comes back", id)
			w.bodies[id].alive = true
			if Relieved(w.store.desc.Ingesters[id]) {
				w.setReadOnly(id, false)
			}
			w.beat(id)
		}
	case 4:
		if id, ok := w.one(alive); ok {
			b := w.bodies[id]
			b.told = !b.told
			w.note("%s is read-only: %v", id, b.told)
			w.setReadOnly(id, b.told)
		}
	case 5:
		if id, ok := w.one(alive); ok {
			w.leave(id)
		}
	case 6:
		w.leaveZone()
	}
	w.show()
}

// leave has a member go for good: it takes no writes, ships all it has and leaves the ring.
func (w *town) leave(id string) {
	if len(w.bodies) <= 4 {
		return
	}
	w.note("%s leaves", id)
	w.setReadOnly(id, true)
	w.pass(30 * time.Second)
	w.acked = slices.DeleteFunc(w.acked, func(s written) bool { return slices.Contains(s.by, id) })
	w.store.desc.RemoveIngester(id)
	delete(w.bodies, id)
}

// leaveZone has all members of a zone go, one after the other, if there are more zones than replicas. Some
// of them, or others, may join again later.
func (w *town) leaveZone() {
	left, ok := w.one(alive)
	if !ok || !w.rules.Zones || w.zones == 3 || w.rnd.IntN(2) == 0 {
		return
	}
	zone := w.store.desc.Ingesters[left].Zone
	for _, id := range slices.Sorted(maps.Keys(w.bodies)) {
		if b := w.bodies[id]; b != nil && b.alive && w.store.desc.Ingesters[id].Zone == zone {
			w.leave(id)
		}
	}
}

func (w *town) tenant() (string, int) {
	n := w.rnd.IntN(4)
	return fmt.Sprint("t", n), []int{0, 3, 4, 6}[n]
}

// write has a sample replicated as a distributor does, by whoever is alive, less those who miss it by
// accident.
func (w *town) write() {
	id, size := w.tenant()
	shard := w.ring.ShuffleShard(id, size)
	set, err := shard.Get(w.rnd.Uint32(), ring.WriteNoExtend, nil, nil, nil)
	if err != nil {
		return
	}
	var by []string
	for _, d := range set.Instances {
		if b := w.bodies[d.Id]; b != nil && b.alive && w.rnd.IntN(8) > 0 {
			by = append(by, d.Id)
		}
	}
	if len(by) >= len(set.Instances)-set.MaxErrors {
		w.acked = append(w.acked, written{id, size, time.Now(), by})
	}
}

// read checks that whoever a read asks, and whoever of them fails, all that was acknowledged is among
// the answers that are enough.
func (w *town) read() {
	w.acked = slices.DeleteFunc(w.acked, func(s written) bool { return time.Since(s.at) > shippedBy })
	for n := range 4 {
		id, size := fmt.Sprint("t", n), []int{0, 3, 4, 6}[n]
		set, err := ReadSet(w.ring.ShuffleShardWithLookback(id, size, kept, time.Now()))
		if err != nil {
			w.reads.refused++
			continue
		}
		w.reads.whole++
		zones := map[string]string{}
		for _, d := range set.Instances {
			zones[d.Id] = d.Zone
		}
		for _, s := range w.acked {
			if s.tenant != id {
				continue
			}
			asked := map[string]bool{}
			for _, h := range s.by {
				zone, ok := zones[h]
				switch {
				case ok && set.ZoneAwarenessEnabled:
					asked[zone] = true
				case ok:
					asked[h] = true
				}
			}
			if len(asked) <= set.MaxErrors+set.MaxUnavailableZones {
				w.t.Fatalf("a sample of %s of %s is with %v; a read asks %v, of whom %d may fail\nwhat happened: %v\nring: %v", id, s.at.Format("02 15:04:05"), s.by,
					slices.Sorted(maps.Keys(zones)), set.MaxErrors+set.MaxUnavailableZones, w.steps, w.store.desc)
			}
		}
	}
}

// calm has everybody come back, and then reads and writes must be served.
func (w *town) calm() {
	for id, b := range w.bodies {
		b.alive = true
		if d := w.store.desc.Ingesters[id]; d.ReadOnly {
			w.setReadOnly(id, false)
		}
	}
	for len(w.bodies) < 2*w.zones {
		w.join()
	}
	w.pass(time.Minute)
	refused := w.reads.refused
	w.read()
	if w.reads.refused > refused {
		w.t.Fatalf("all are well, and a read is refused\nwhat happened: %v\nring: %v", w.steps, w.store.desc)
	}
}

// TestAtAnyScheduleAReadMissesNothingAcknowledged has members of a ring die, come back, join, leave and
// be taken off their work, and checks after each step that reads reach what was acknowledged, or are
// refused.
func TestAtAnyScheduleAReadMissesNothingAcknowledged(t *testing.T) {
	whole := 0
	seeds.Run(t, 10, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			w := newTown(t, rnd)
			for range 60 {
				w.step()
				for range 4 {
					w.write()
				}
				w.read()
				w.pass([]time.Duration{30 * time.Second, 2 * time.Minute, 15 * time.Minute, 4 * time.Hour}[rnd.IntN(4)])
				w.read()
			}
			w.calm()
			whole += w.reads.whole
		})
	})
	if whole == 0 {
		t.Error("every read was refused")
	}
}
