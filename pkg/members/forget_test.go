package members

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/consul"
	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func rules(zones bool) Rules {
	return Rules{HeartbeatTimeout: time.Minute, Forget: 10 * time.Minute, Keep: 13 * time.Hour, Replicas: 3, Zones: zones}
}

func TestASilentMemberIsForgottenWhenThatHelpsAndDoesNoHarm(t *testing.T) {
	for _, c := range []struct {
		name    string
		zones   bool
		members string
		want    string // relieved, then after / removed
	}{
		{"replaced by another of its zone", true, "a a ACTIVE 11m, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a /"},
		{"stopped and replaced", true, "a a LEAVING 11m, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a /"},
		{"silent, but not for long", true, "a a ACTIVE 9m, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "/"},
		{"nobody else in its zone", true, "a a ACTIVE 1h, b b ACTIVE 1s, c c ACTIVE 1s", "/"},
		{"nobody else takes writes in its zone", true, "a a ACTIVE 1h, d a ACTIVE 1s ro, e a PENDING 1s, b b ACTIVE 1s, c c ACTIVE 1s", "/"},
		{"most of the zone silent", true, "a a ACTIVE 1h, d a ACTIVE 1h, e a ACTIVE 1s, b b ACTIVE 1s, f b ACTIVE 1s, c c ACTIVE 1s, g c ACTIVE 1s", "/"},
		{"half of the zone silent", true, "a a ACTIVE 1h, d a ACTIVE 1h, e a ACTIVE 1s, h a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a d /"},
		{"cut off from the other zones", true, "a a ACTIVE 1h, d a ACTIVE 1s, b b ACTIVE 1h, f b ACTIVE 1h, c c ACTIVE 1h, g c ACTIVE 1h", "/"},
		{"never alive", true, "a a ACTIVE 480000h, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "a /"},
		{"relieved, samples not shipped by others", true, "a a ACTIVE 12h ro, d a ACTIVE 1s, b b ACTIVE 1s, c c ACTIVE 1s", "/"},
		{"relieved long ago", true, "a a ACTIVE 14h ro, b b ACTIVE 1s, c c ACTIVE 1s", "/ a"},
		{"read-only and alive", true, "a a ACTIVE 1s ro, b b ACTIVE 1s, c c ACTIVE 1s", "/"},

		{"no zones, enough others", false, "a - ACTIVE 11m, b - ACTIVE 1s, c - ACTIVE 1s, d - ACTIVE 1s", "a /"},
		{"no zones, fewer others than replicas", false, "a - ACTIVE 11m, b - ACTIVE 1s, c - ACTIVE 1s", "/"},
		{"no zones, half silent", false, "a - ACTIVE 11m, b - ACTIVE 11m, e - ACTIVE 11m, c - ACTIVE 1s, d - ACTIVE 1s, f - ACTIVE 1s", "/"},
		{"no zones, a third silent", false, "a - ACTIVE 11m, b - ACTIVE 11m, c - ACTIVE 1s, d - ACTIVE 1s, e - ACTIVE 1s, f - ACTIVE 1s", "a b /"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now()
			d := desc(now, strings.Split(c.members, ", ")...)
			v := rules(c.zones).judge(d, now)
			slices.Sort(v.relieve)
			if got := strings.TrimSpace(strings.Join(append(append(v.relieve, "/"), v.remove...), " ")); got != c.want {
				t.Errorf("relieved / removed: %s, want %s", got, c.want)
			}
			off := rules(c.zones)
			off.Forget = 0
			if v := off.judge(d, now); !v.empty() {
				t.Errorf("forgot %v although told never to", v)
			}
		})
	}
}

// keeper is a caretaker of member a with a clock of its own.
type keeper struct {
	*Caretaker
	now    time.Time
	store  kv.Client
	reg    *prometheus.Registry
	logged *strings.Builder
	cut    []bool
}

func newKeeper(t *testing.T, zones bool) *keeper {
	t.Helper()
	store, closer := consul.NewInMemoryClient(ring.GetCodec(), log.NewNopLogger(), nil)
	t.Cleanup(func() { _ = closer.Close() })
	k := &keeper{now: time.Now(), store: store, reg: prometheus.NewRegistry(), logged: &strings.Builder{}}
	k.Caretaker = NewCaretaker(CaretakerDeps{
		Log: slog.New(slog.NewTextHandler(k.logged, nil)), Reg: k.reg, KV: store, Key: "ring", ID: "a", Addr: "a:1",
		Every: time.Second, Rules: rules(zones), Now: func() time.Time { return k.now },
		CutOff: func(_ context.Context, cut bool) error { k.cut = append(k.cut, cut); return nil },
	})
	return k
}

// set makes the ring what members say.
func (k *keeper) set(t *testing.T, members ...string) {
	t.Helper()
	err := k.store.CAS(t.Context(), "ring", func(any) (any, bool, error) { return desc(k.now, members...), true, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func (k *keeper) look(t *testing.T) map[string]ring.InstanceDesc {
	t.Helper()
	if err := k.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := load(t.Context(), k.store, "ring")
	if err != nil {
		t.Fatal(err)
	}
	return d.Ingesters
}

func TestARelievedMemberIsRemovedWhenItsSamplesAreElsewhere(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a ACTIVE 1s", "b b ACTIVE 1s", "c c ACTIVE 1s", "old a ACTIVE 11m")
	was := k.look(t)["old"]
	if !Relieved(was) || len(was.Tokens) == 0 || was.IsHeartbeatHealthy(time.Minute, k.now) {
		t.Fatalf("not relieved, or it looks alive: %+v", was)
	}
	if again := k.look(t)["old"]; !again.Equal(was) {
		t.Errorf("changed again: %+v, was %+v", again, was)
	}
	k.now = k.now.Add(14 * time.Hour)
	if _, ok := k.look(t)["old"]; ok {
		t.Error("still there after 14 h")
	}
	if n := testutil.ToFloat64(k.metrics.relieved) + 10*testutil.ToFloat64(k.metrics.removed); n != 11 {
		t.Errorf("metrics: %v", n)
	}
}

func TestAMarkIsNewerThanAHeartbeatThatOnlyOthersHeard(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a ACTIVE 1s", "b b ACTIVE 1s", "c c ACTIVE 1s", "old a ACTIVE 10m5s")
	others := desc(k.now, "old a ACTIVE 8m")
	k.look(t)
	d, err := load(t.Context(), k.store, "ring")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := others.Merge(d, false); err != nil {
		t.Fatal(err)
	}
	if m := others.Ingesters["old"]; !Relieved(m) || m.IsHeartbeatHealthy(time.Minute, k.now) {
		t.Errorf("others have %+v", m)
	}
}

func TestAllWhoRelieveAMemberWriteTheSame(t *testing.T) {
	one, two := newKeeper(t, true), newKeeper(t, true)
	members := []string{"a a ACTIVE 1s", "b b ACTIVE 1s", "c c ACTIVE 1s", "old a ACTIVE 11m"}
	two.now = one.now
	one.set(t, members...)
	two.set(t, members...)
	two.now = two.now.Add(20 * time.Second)
	if x, y := one.look(t)["old"], two.look(t)["old"]; !x.Equal(y) {
		t.Errorf("%+v and %+v", x, y)
	}
}

func TestAMemberThatIsCutOffSaysSoBeforeOthersRelieveIt(t *testing.T) {
	k := newKeeper(t, true)
	all := []string{"a a ACTIVE 1s", "b b ACTIVE 1s", "c c ACTIVE 1s"}
	alone := []string{"a a ACTIVE 1s", "b b ACTIVE 2m", "c c ACTIVE 2m"}
	k.set(t, all...)
	k.look(t)
	k.set(t, alone...)
	k.look(t)
	if len(k.cut) > 0 {
		t.Fatal("told at once")
	}
	k.now = k.now.Add(6 * time.Minute)
	k.set(t, alone...)
	k.look(t)
	k.look(t)
	k.set(t, all...)
	k.look(t)
	if fmt.Sprint(k.cut) != "[true false]" {
		t.Errorf("told %v, want once that it is cut off and once that it is not", k.cut)
	}
}

func TestDoubleNamesAndWrongClocksAreReportedOnce(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a ACTIVE 1s at=other:1", "b b ACTIVE -30s", "c c ACTIVE 1s")
	k.look(t)
	k.look(t)
	if n := strings.Count(k.logged.String(), "instance ID"); n != 1 {
		t.Errorf("%d reports of the double name:\n%s", n, k.logged)
	}
	if n := strings.Count(k.logged.String(), "clock is ahead"); n != 1 {
		t.Errorf("%d reports of the clock:\n%s", n, k.logged)
	}
	if n, skew := testutil.ToFloat64(k.metrics.conflicts), testutil.ToFloat64(k.metrics.skew); n != 2 || skew < 29 || skew > 31 {
		t.Errorf("metrics: %v conflicts, %v s", n, skew)
	}
}

func TestANameIsFreeUnlessItsBearerLives(t *testing.T) {
	k := newKeeper(t, true)
	claim := Claim{KV: k.store, Key: "ring", ID: "x", Addr: "x:2", Timeout: time.Minute, Wait: 20 * time.Second,
		Answers: func(context.Context, string) bool { return true }}
	for members, beats := range map[string]bool{
		"x a ACTIVE 1s at=x:1": true, "x a ACTIVE 1s at=x:2": false, "x a LEAVING 1s at=x:1": false, "x a ACTIVE 2m at=x:1": false, "y a ACTIVE 1s": false,
	} {
		k.set(t, members)
		var beat sync.WaitGroup
		done := make(chan struct{})
		if beats {
			beat.Go(func() { // again and again: the first may come before the check looks
				for n := 5; ; n++ {
					next := desc(k.now, fmt.Sprintf("x a ACTIVE -%ds at=x:1", n))
					if err := k.store.CAS(t.Context(), "ring", func(any) (any, bool, error) { return next, true, nil }); err != nil {
						t.Error(err)
					}
					select {
					case <-done:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			})
		}
		if err := claim.Check(t.Context()); beats != (errs.KindOf(err) == errs.Conflict) || !beats && err != nil {
			t.Errorf("%s: %v", members, err)
		}
		close(done)
		beat.Wait()
	}
	k.set(t, "x a ACTIVE 1s at=x:1")
	claim.Answers = func(context.Context, string) bool { return false }
	if err := claim.Check(t.Context()); err != nil {
		t.Errorf("nobody answers: %v", err)
	}
	claim.Answers, claim.Wait = func(context.Context, string) bool { return true }, 50*time.Millisecond
	if err := claim.Check(t.Context()); err != nil {
		t.Errorf("no heartbeat: %v", err)
	}
}

func TestStoppingWithSamplesAndComingBack(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a LEAVING 1s", "b b ACTIVE 1s ro", "c c ACTIVE 1s")
	for id, want := range map[string]bool{"a": true, "b": false, "nobody": false} {
		if err := Relieve(t.Context(), k.store, "ring", id); err != nil {
			t.Fatal(err)
		}
		if got, err := WasRelieved(t.Context(), k.store, "ring", id); err != nil || got != want {
			t.Errorf("%s relieved: %v, %v; want %v", id, got, err, want)
		}
	}
}

func TestAMemberIsNewIfTheRingRemembersForLongEnough(t *testing.T) {
	k := newKeeper(t, true)
	for _, c := range []struct {
		member string
		memory time.Duration
		want   bool
	}{
		{"a a ACTIVE 1s", 13 * time.Hour, true}, // registered a day ago
		{"a a ACTIVE 1s", 25 * time.Hour, false},
		{"x a ACTIVE 20h", 13 * time.Hour, false},
		{"x a LEAVING 1h ro", 13 * time.Hour, false},
	} {
		k.set(t, c.member)
		if got, err := Unknown(t.Context(), k.store, "ring", "x", c.memory); err != nil || got != c.want {
			t.Errorf("ring of %q that remembers for %s: %v, %v; want %v", c.member, c.memory, got, err, c.want)
		}
	}
	if got, err := Unknown(t.Context(), k.store, "nowhere", "x", time.Hour); got || err != nil {
		t.Errorf("an empty ring: %v, %v", got, err)
	}
}
