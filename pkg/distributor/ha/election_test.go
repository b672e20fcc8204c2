package ha

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/kv/memberlist"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// randomState has elections that are often alike, so that all ways to decide are met.
func randomState(r *rand.Rand) *State {
	s := newState()
	for range r.Intn(4) {
		e := election{term: uint64(1 + r.Intn(3)), electedAt: int64(r.Intn(3)), receivedAt: int64(r.Intn(5))}
		if r.Intn(4) > 0 {
			e.replica = string(rune('a' + r.Intn(3)))
		}
		s.elections[clusterKey{"t", string(rune('x' + r.Intn(2)))}] = e
	}
	return s
}

// merged returns what a becomes by merging b, and the change reported.
func merged(t *testing.T, a, b *State) (result, change *State) {
	t.Helper()
	result = a.Clone().(*State)
	c, err := result.Merge(b.Clone(), false)
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		return result, newState()
	}
	return result, c.(*State)
}

func equal(a, b *State) bool { return maps.Equal(a.elections, b.elections) }

func TestMergingIsIdempotentCommutativeAndAssociative(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 10_000 {
		a, b, c := randomState(r), randomState(r), randomState(r)
		ab, change := merged(t, a, b)
		ba, _ := merged(t, b, a)
		if !equal(ab, ba) {
			t.Fatalf("%v and %v make %v or %v, by who merges whom", a, b, ab, ba)
		}
		if again, change := merged(t, ab, b); !equal(again, ab) || len(change.elections) > 0 {
			t.Fatalf("%v merged with %v again makes %v, change %v", ab, b, again, change)
		}
		if byChange, _ := merged(t, a, change); !equal(byChange, ab) {
			t.Fatalf("%v merged with %v makes %v, with only the change of that %v", a, b, ab, byChange)
		}
		bc, _ := merged(t, b, c)
		left, _ := merged(t, ab, c)
		right, _ := merged(t, a, bc)
		if !equal(left, right) {
			t.Fatalf("%v, %v, %v make %v or %v, by what is merged first", a, b, c, left, right)
		}
	}
}

func TestTheNewestElectionCountsWhateverTheClocksSay(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b election // a counts
	}{
		{"a later term", election{"a", 3, 10, 10}, election{"b", 2, 99, 99}},
		{"at once: who was first", election{"b", 2, 10, 10}, election{"a", 2, 11, 99}},
		{"at once and at the same time: the smaller name", election{"a", 2, 10, 10}, election{"b", 2, 10, 99}},
		{"at once: not the deletion", election{"a", 2, 11, 11}, election{"", 2, 10, 99}},
		{"a later deletion", election{"", 3, 10, 10}, election{"a", 2, 99, 99}},
		{"after a deletion", election{"a", 4, 10, 10}, election{"", 3, 99, 99}},
	} {
		if c.a.join(c.b) != c.a || c.b.join(c.a) != c.a {
			t.Errorf("%s: %v and %v make %v", c.name, c.a, c.b, c.a.join(c.b))
		}
	}
	if got, want := (election{"a", 2, 10, 20}).join(election{"a", 2, 10, 30}), (election{"a", 2, 10, 30}); got != want {
		t.Errorf("the same election makes %v, want %v", got, want)
	}
}

func TestDeletionsAreSeenUntilTheyAreOld(t *testing.T) {
	now := time.Now()
	s := newState()
	s.elections[clusterKey{"t", "old"}] = election{"", 2, 0, now.Add(-time.Hour).UnixMilli()}
	s.elections[clusterKey{"t", "new"}] = election{"", 2, 0, now.UnixMilli()}
	s.elections[clusterKey{"t", "live"}] = election{"a", 2, 0, now.Add(-time.Hour).UnixMilli()}
	if total, removed := s.RemoveTombstones(time.Time{}); total != 2 || removed != 0 {
		t.Errorf("without a limit: %d of %d removed, want none", removed, total)
	}
	if total, removed := s.RemoveTombstones(now.Add(-time.Minute)); total != 1 || removed != 1 || len(s.elections) != 2 {
		t.Errorf("%d left, %d removed: %v", total, removed, s)
	}
	if got := s.MergeContent(); !slices.Contains(got, "t/new") || len(got) != 2 {
		t.Errorf("content = %v", got)
	}
}

func TestMergingSomethingElseIsAnError(t *testing.T) {
	if _, err := newState().Merge(other{}, false); err == nil {
		t.Error("merged")
	}
	if c, err := newState().Merge((*State)(nil), false); c != nil || err != nil {
		t.Errorf("nothing: %v, %v", c, err)
	}
}

type other struct{ memberlist.Mergeable }

func TestStatesSurviveTheCodec(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for i := range 1000 {
		s := randomState(r)
		s.elections[clusterKey{tenant.ID(fmt.Sprint("t", i)), "ü/\xff"}] = election{"r\x00", farTerm - 1, -farTime + 1, farTime - 1}
		b, err := Codec{}.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Codec{}.Decode(b)
		if err != nil || !equal(got.(*State), s) {
			t.Fatalf("%v reads back as %v, %v", s, got, err)
		}
	}
	if _, err := (Codec{}).Encode(5); err == nil {
		t.Error("a number was encoded")
	}
}

func TestThePageOfGossipShowsElections(t *testing.T) {
	s := newState()
	s.elections[clusterKey{"t", "c"}] = election{"r", 3, 1_700_000_000_000, farTime - 1}
	b, err := json.Marshal(s)
	if want := `[{"tenant":"t","cluster":"c","replica":"r","election":3,"elected_at":"2023-11-14T22:13:20Z","received_at":"`; err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
}

func TestLaterVersionsMayAddToAnElection(t *testing.T) {
	s := newState()
	s.elections[clusterKey{"t", "c"}] = election{"r", 1, 2, 3}
	b, err := Codec{}.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, "more"...)
	b[1] += 4
	if got, err := (Codec{}).Decode(b); err != nil || !equal(got.(*State), s) {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	s := newState()
	for _, k := range []clusterKey{{"t", "c"}, {"t", ""}, {"u", "long name"}} {
		s.elections[k] = election{"replica", 7, 1700000000000, 1700000000001}
	}
	b, err := Codec{}.Encode(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{1, 255, 255, 255, 255, 15})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Codec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := Codec{}.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := Codec{}.Decode(again)
		if err != nil || !equal(v.(*State), w.(*State)) {
			t.Fatalf("%v reads back as %v, %v", v, w, err)
		}
		if change, err := v.(*State).Merge(w.(*State), false); change != nil || err != nil {
			t.Fatalf("merging the same changes %v, %v", change, err)
		}
	})
}
