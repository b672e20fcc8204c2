package members

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
)

// desc makes a ring of members written as "id zone state age", with options appended: "ro" is
// read-only, "at=x" is the address.
func desc(now time.Time, members ...string) *ring.Desc {
	d := ring.NewDesc()
	for n, m := range members {
		f := strings.Fields(m)
		age, err := time.ParseDuration(f[3])
		if err != nil {
			panic(err)
		}
		i := ring.InstanceDesc{Id: f[0], Addr: f[0] + ":1", Zone: f[1], State: ring.InstanceState(ring.InstanceState_value[f[2]]),
			Timestamp: now.Add(-age).Unix(), RegisteredTimestamp: now.Add(-24 * time.Hour).Unix()}
		if i.State != ring.PENDING {
			for k := range uint32(8) {
				i.Tokens = append(i.Tokens, k<<28+uint32(n)+1)
			}
		}
		for _, o := range f[4:] {
			switch {
			case o == "ro":
				i.ReadOnly, i.ReadOnlyUpdatedTimestamp = true, i.Timestamp
			case strings.HasPrefix(o, "at="):
				i.Addr = o[3:]
			}
		}
		d.Ingesters[f[0]] = i
	}
	return d
}

func ringOf(t *testing.T, d *ring.Desc, rf int, zones bool) *ring.Ring {
	t.Helper()
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { _ = closer.Close() })
	if err := store.CAS(t.Context(), "ring", func(any) (any, bool, error) { return d, true, nil }); err != nil {
		t.Fatal(err)
	}
	r, err := ring.New(ring.Config{KVStore: kv.Config{Mock: store}, HeartbeatTimeout: time.Minute, ReplicationFactor: rf,
		ZoneAwarenessEnabled: zones}, "test", "ring", log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(t.Context(), r) })
	return r
}

func TestAReadAsksEnoughThatNoAcknowledgedSampleIsMissed(t *testing.T) {
	for _, c := range []struct {
		name    string
		rf      int
		zones   bool
		members string
		want    string // ids, then what may fail; "none": the read is refused
	}{
		{"all well", 3, true, "a a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a b c 1"},
		{"one silent", 3, true, "a a ACTIVE 2m, b b ACTIVE 1s, c c ACTIVE 1s", "b c 0"},
		{"two silent", 3, true, "a a ACTIVE 2m, b b ACTIVE 2m, c c ACTIVE 1s", "none"},
		{"two of one zone silent", 3, true, "a a ACTIVE 2m, d a ACTIVE 2m, b b ACTIVE 1s, c c ACTIVE 1s", "b c 0"},
		{"stopping", 3, true, "a a LEAVING 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a b c 1"},
		{"joining in every zone", 3, true, "a a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s, d a JOINING 1s, e b PENDING 1s, f c JOINING 1s", "a b c d e f 1"},
		{"one zone not there yet", 3, true, "a a ACTIVE 1s, b b ACTIVE 1s", "a b 0"},
		{"one zone not there yet, one silent", 3, true, "a a ACTIVE 1s, b b ACTIVE 2m", "none"},
		{"two zones not there yet", 3, true, "a a ACTIVE 1s", "none"},
		{"more zones than replicas", 3, true, "a a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s, d d ACTIVE 2m", "a b c 0"},
		{"forgotten lately", 3, true, "a a ACTIVE 2m ro, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "b c 0"},
		{"forgotten long ago", 3, true, "a a ACTIVE 15h ro, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "b c d 1"},
		{"address taken over", 3, true, "a a ACTIVE 20s, b b ACTIVE 1s at=a:1, c c ACTIVE 1s", "b c 0"},

		{"no zones", 3, false, "a - ACTIVE 1s, b - ACTIVE 1s, c - ACTIVE 1s, d - ACTIVE 1s", "a b c d 1"},
		{"no zones, one silent", 3, false, "a - ACTIVE 2m, b - ACTIVE 1s, c - ACTIVE 1s, d - ACTIVE 1s", "b c d 0"},
		{"no zones, two silent", 3, false, "a - ACTIVE 2m, b - ACTIVE 2m, c - ACTIVE 1s, d - ACTIVE 1s", "none"},
		{"no zones, two joining", 3, false, "a - JOINING 1s, b - JOINING 1s, c - ACTIVE 1s, d - ACTIVE 1s, e - ACTIVE 1s", "a b c d e 1"},
		{"no zones, one not there yet", 3, false, "a - ACTIVE 1s, b - ACTIVE 1s", "a b 0"},
		{"no zones, address taken over", 3, false, "a - ACTIVE 20s at=b:1, b - ACTIVE 1s, c - ACTIVE 1s, d - ACTIVE 2m", "none"},
		{"one process", 1, false, "a - ACTIVE 1s", "a 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now()
			d := desc(now, strings.Split(c.members, ", ")...)
			r := ringOf(t, d, c.rf, c.zones)
			set, err := ReadSet(r.ShuffleShardWithLookback("", 0, 13*time.Hour, now))
			got := "none"
			if err == nil {
				ids := set.GetIDs()
				slices.Sort(ids)
				got = fmt.Sprint(strings.Join(ids, " "), " ", set.MaxErrors+set.MaxUnavailableZones)
			} else if !errors.Is(err, ring.ErrTooManyUnhealthyInstances) {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("asked %s, want %s", got, c.want)
			}
		})
	}
}
