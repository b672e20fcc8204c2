package members

import (
	"fmt"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const ownersStale = time.Minute

// ownersAt is the ring of one member, at a time that tests move.
type ownersAt struct {
	t *testing.T
	*Owners
	now time.Time
}

func newOwnersAt(t *testing.T, self string, ids ...string) *ownersAt {
	o := &ownersAt{t, NewOwners(self, ownersStale), time.Unix(1_700_000_000, 0)}
	o.look(ids...)
	o.now = o.now.Add(ownersSettle)
	return o
}

func (o *ownersAt) look(ids ...string) {
	alive := map[string]string{}
	for _, id := range ids {
		alive[id] = "addr-" + id
	}
	o.Look(alive, o.now)
}

func (o *ownersAt) of(thing uint64) Owned {
	o.t.Helper()
	d, err := o.Division(o.now)
	if err != nil {
		o.t.Fatal(err)
	}
	return d.Of(thing)
}

// things are hashes as they come.
func things(n int) (out []uint64) {
	for i := range n {
		out = append(out, score(uint64(i), 42))
	}
	return out
}

func TestEachThingHasOneOwnerAndOnlyThoseOfAMemberThatGoesMove(t *testing.T) {
	a, b := newOwnersAt(t, "a", "a", "b", "c"), newOwnersAt(t, "b", "b", "a", "c")
	before, count := map[uint64]Owned{}, map[string]int{}
	for _, x := range things(3000) {
		before[x] = a.of(x)
		count[before[x].Addr]++
		if other := b.of(x); other.Addr != before[x].Addr || before[x].Self != (other.Addr == "addr-a") || other.Self != (other.Addr == "addr-b") {
			t.Fatalf("of %x: %+v and %+v", x, before[x], other)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		if n := count["addr-"+id]; n < 850 || n > 1150 {
			t.Errorf("%s owns %d of 3000", id, n)
		}
	}
	a.look("a", "b")
	a.now = a.now.Add(ownersSettle)
	for x, was := range before {
		is := a.of(x)
		if moved := was.Addr == "addr-c"; moved != (is.Addr != was.Addr) || moved != (is.Epoch > was.Epoch) {
			t.Fatalf("of %x: %+v was %+v", x, is, was)
		}
	}
}

// TestWhatComesBackHasAHigherEpoch: so what its owner remembers of it is not used.
func TestWhatComesBackHasAHigherEpoch(t *testing.T) {
	a := newOwnersAt(t, "a", "a")
	for _, x := range things(100) {
		first := a.of(x)
		a.look("a", "b")
		a.now = a.now.Add(ownersSettle)
		lent := !a.of(x).Self
		a.look("a")
		if lent && a.of(x).Addr != "" {
			t.Fatalf("%x is used at once by who owns it again", x)
		}
		a.now = a.now.Add(ownersSettle)
		if again := a.of(x); !again.Self || lent != (again.Epoch > first.Epoch) {
			t.Fatalf("of %x, lent %t: %+v was %+v", x, lent, again, first)
		}
	}
}

func TestANewOwnerWaitsUntilTheOthersKnow(t *testing.T) {
	a := NewOwners("a", ownersStale)
	now := time.Unix(1_700_000_000, 0)
	if _, err := a.Division(now); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("before the first look: %v", err)
	}
	a.Look(map[string]string{"a": "addr"}, now)
	for after, want := range map[time.Duration]string{0: "", ownersSettle - 1: "", ownersSettle: "addr", ownersStale: "addr"} {
		if d, err := a.Division(now.Add(after)); err != nil || d.Of(1).Addr != want || !d.Of(1).Self {
			t.Errorf("after %s: %+v, %v", after, d.Of(1), err)
		}
	}
	if _, err := a.Division(now.Add(ownersStale + 1)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("long after the last look: %v", err)
	}
}

// TestWhoSleptBeginsAnew: the others took it for dead, which it did not see.
func TestWhoSleptBeginsAnew(t *testing.T) {
	a := newOwnersAt(t, "a", "a", "b")
	before := map[uint64]int64{}
	for _, x := range things(50) {
		before[x] = a.of(x).Epoch
	}
	a.now = a.now.Add(2 * ownersStale)
	a.look("a", "b")
	for x, was := range before {
		if is := a.of(x); is.Self && (is.Addr != "" || is.Epoch <= was) {
			t.Fatalf("of %x: %+v, was %d", x, is, was)
		}
	}
}

// TestWhatOthersSawCounts: a was taken for dead by b alone, and hears of it.
func TestWhatOthersSawCounts(t *testing.T) {
	a, b := newOwnersAt(t, "a", "a", "b"), newOwnersAt(t, "b", "a", "b")
	a.Learn(b.Changes())
	before := map[uint64]Owned{}
	for _, x := range things(50) {
		before[x] = a.of(x)
	}
	b.look("b")
	b.look("a", "b")
	for range 2 { // what is known already changes nothing
		a.Learn(b.Changes())
		for x, was := range before {
			is := a.of(x)
			if is.Addr != was.Addr || is.Self && is.Epoch <= was.Epoch {
				t.Fatalf("of %x: %+v was %+v", x, is, was)
			}
		}
	}
	invented := map[string]int64{}
	for i := range 2 * maxOwners {
		invented[fmt.Sprint("nobody-", i)] = 1
	}
	a.Learn(invented)
	if n := len(a.Changes()); n > maxOwners+2 {
		t.Errorf("%d members are believed in", n)
	}
}

func BenchmarkOwnerOfFifty(b *testing.B) {
	alive := map[string]string{}
	for i := range 50 {
		alive[fmt.Sprint("distributor-", i)] = fmt.Sprint("addr-", i)
	}
	o, now := NewOwners("distributor-0", ownersStale), time.Unix(1_700_000_000, 0)
	o.Look(alive, now)
	d, err := o.Division(now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for x := uint64(0); b.Loop(); x++ {
		d.Of(x)
	}
}
