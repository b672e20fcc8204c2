package members

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestARingThatEverybodyForgotIsRecalled(t *testing.T) {
	k := newKeeper(t, true)
	k.deps.Memory = &Memory{Path: filepath.Join(t.TempDir(), "ring.json")}
	k.set(t, "a a ACTIVE 1s", "b b ACTIVE 1s", "c c LEAVING 1s", "d a ACTIVE 1s", "old a ACTIVE 11m")
	was := k.look(t) // relieves old
	k.look(t)
	if !Relieved(was["old"]) {
		t.Fatal("not relieved")
	}

	again := newKeeper(t, true)
	memory := &Memory{Path: k.deps.Memory.Path}
	n, err := memory.Recall(t.Context(), again.store, "ring", k.now.Add(30*time.Minute))
	if err != nil || n != 5 {
		t.Fatalf("%d recalled, %v", n, err)
	}
	d, err := load(t.Context(), again.store, "ring")
	if err != nil {
		t.Fatal(err)
	}
	for id, m := range was {
		if got := d.Ingesters[id]; !got.Equal(m) {
			t.Errorf("%s is %+v, was %+v", id, got, m)
		}
	}
	if n, err := memory.Recall(t.Context(), again.store, "ring", k.now); n != 0 || err != nil {
		t.Errorf("recalled %d into a ring that knows, %v", n, err)
	}
}

func TestWhatIsTooOldOrDamagedIsNotRecalled(t *testing.T) {
	k := newKeeper(t, true)
	m := &Memory{Path: filepath.Join(t.TempDir(), "ring.json")}
	recall := func(at time.Time) (int, error) {
		t.Helper()
		empty := newKeeper(t, true)
		return m.Recall(t.Context(), empty.store, "ring", at)
	}
	if n, err := recall(k.now); n != 0 || err != nil {
		t.Errorf("no file: %d, %v", n, err)
	}
	if err := m.remember(desc(k.now, "a a ACTIVE 1s"), k.now); err != nil {
		t.Fatal(err)
	}
	if n, err := recall(k.now.Add(61 * time.Minute)); n != 0 || err != nil {
		t.Errorf("too old: %d, %v", n, err)
	}
	for _, damaged := range []string{"", "{", `{"saved":"x"}`} {
		if err := os.WriteFile(m.Path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := recall(k.now); n != 0 || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %d, %v", damaged, n, err)
		}
	}
	for range 2 {
		if err := m.Forget(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := recall(k.now); n != 0 || err != nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
}

func TestTheMemoryIsWrittenWhenSomethingChanges(t *testing.T) {
	now := time.Now()
	m := &Memory{Path: filepath.Join(t.TempDir(), "ring.json")}
	written := func(d *ring.Desc, at time.Time) bool {
		t.Helper()
		_ = os.Remove(m.Path)
		if err := m.remember(d, at); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(m.Path)
		return err == nil
	}
	for _, step := range []struct {
		name   string
		member string
		after  time.Duration
		want   bool
	}{
		{"at first", "a a ACTIVE 9s", 0, true},
		{"a heartbeat", "a a ACTIVE 1s", time.Minute, false},
		{"another address", "a a ACTIVE 1s at=x:1", time.Minute, true},
		{"another state", "a a LEAVING 1s at=x:1", time.Minute, true},
		{"read-only", "a a LEAVING 1s at=x:1 ro", time.Minute, true},
		{"long ago", "a a LEAVING 1s at=x:1 ro", 7 * time.Minute, true},
	} {
		if got := written(desc(now, step.member), now.Add(step.after)); got != step.want {
			t.Errorf("%s: written %v, want %v", step.name, got, step.want)
		}
	}
}
