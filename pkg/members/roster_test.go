package members

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestARosterShowsSharesAndWhatIsNotPlain(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a ACTIVE 1s", "b b ACTIVE 2m", "c c ACTIVE 1s ro", "d a ACTIVE 11m", "e b LEAVING 1s", "f b ACTIVE 1s", "g d ACTIVE 11m", "h b ACTIVE 1s")
	k.look(t) // relieves d; g is alone in its zone
	w := rules(true)
	r := &Roster{KV: k.store, Key: "ring", Timeout: time.Minute, Zones: true, Rules: &w}
	all, err := r.Members(t.Context())
	if err != nil || len(all) != 8 {
		t.Fatalf("%v, %v", all, err)
	}
	for i, want := range []struct{ id, state, note string }{
		{"a", "ACTIVE", ""}, {"b", "UNHEALTHY", ""}, {"c", "ACTIVE", "no writes"}, {"d", "UNHEALTHY", "count it as missing until 20"}, {"e", "LEAVING", ""},
		{"f", "ACTIVE", ""}, {"g", "UNHEALTHY", "others cannot take its series"}, {"h", "ACTIVE", ""},
	} {
		m := all[i]
		if m.ID != want.id || m.State != want.state || !strings.Contains(m.Note, want.note) || want.note == "" && m.Note != "" {
			t.Errorf("%+v, want %+v", m, want)
		}
	}
	sum := func() (s float64) {
		for _, m := range all {
			s += m.Share
		}
		return s
	}
	if s := sum(); math.Abs(s-4) > 1e-6 {
		t.Errorf("the shares of four zones are %v together, want 4", s)
	}
	r.Zones = false
	if all, err = r.Members(t.Context()); err != nil || math.Abs(sum()-1) > 1e-6 {
		t.Errorf("without zones the shares are %v together, %v; want 1", sum(), err)
	}
}

func TestAnOperatorForgetsInTwoSteps(t *testing.T) {
	k := newKeeper(t, true)
	k.set(t, "a a ACTIVE 1s", "b b ACTIVE 2m", "c c LEAVING 1s")
	w := rules(true)
	r := &Roster{KV: k.store, Key: "ring", Timeout: time.Minute, Zones: true, Rules: &w}
	has := func(id string) (there, relieved bool) {
		d, err := load(t.Context(), k.store, "ring")
		if err != nil {
			t.Fatal(err)
		}
		m, ok := d.Ingesters[id]
		return ok, Relieved(m)
	}
	if err := r.Forget(t.Context(), "x"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("nobody: %v", err)
	}
	if err := r.Forget(t.Context(), "a"); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a living one: %v", err)
	}
	for _, id := range []string{"b", "c"} {
		if err := r.Forget(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if there, relieved := has(id); !there || !relieved {
			t.Errorf("%s at first: there %v, relieved %v", id, there, relieved)
		}
		if err := r.Forget(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if there, _ := has(id); there {
			t.Errorf("%s is still there", id)
		}
	}
	r.Rules = nil // nothing is held
	if err := r.Forget(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if there, _ := has("a"); there {
		t.Error("a is still there")
	}
}
