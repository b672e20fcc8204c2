package docstore

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestATextKeepsItsBytesBesideItsNote(t *testing.T) {
	s, ctx := open(t), t.Context()
	texts := NewTexts(s, nil)
	lookalike := "a: 1\n" + trailerMark + `{"modified":"2026-01-02T03:04:05Z","note":{"x":1}}`
	for _, data := range []string{"a", "a\n", "\n", "a\r\n", " a  ", "# amphora: not ours", strings.Repeat("x", memorySize), lookalike} {
		version, err := texts.Put(ctx, "k", []byte(data), "")
		if err != nil {
			t.Fatal(err)
		}
		if d, err := texts.Get(ctx, "k"); err != nil || string(d.Data) != data || d.Version != version {
			t.Errorf("put %q, got %q, %v", data, d.Data, err)
		}
		at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		_, err = texts.Change(ctx, "k", func(old Text) (*Text, error) {
			old.Note, old.Memory, old.Modified = json.RawMessage(`{"tag":"\u2028"}`), json.RawMessage(`{"token":1}`), at
			return &old, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		x, err := texts.Look(ctx, "k")
		if err != nil || !x.Exists() || string(x.Data) != data || len(x.Note) == 0 || string(x.Memory) != `{"token":1}` || !x.Modified.Equal(at) {
			t.Errorf("noted %q, got %+v, %v", data, x, err)
		}
		if err := texts.Delete(ctx, "k", x.Version); err != nil {
			t.Fatal(err)
		}
		gone, err := texts.Look(ctx, "k")
		if err != nil || gone.Exists() || gone.Note != nil || string(gone.Memory) != `{"token":1}` {
			t.Errorf("what is left of %q is %+v, %v", data, gone, err)
		}
		if err := s.Delete(ctx, "k", gone.Version); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATextThatIsGoneIsNotThereAndForgottenInTime(t *testing.T) {
	s, ctx := open(t), t.Context()
	now := time.Now()
	texts, other := NewTexts(s, func() time.Time { return now }), NewTexts(s, nil)
	change := func(next Text) {
		t.Helper()
		next.Modified = now
		if _, err := texts.Change(ctx, "d/k", func(Text) (*Text, error) { return &next, nil }); err != nil {
			t.Fatal(err)
		}
	}
	lists := func(want int) {
		t.Helper()
		for range 2 {
			if es, err := other.List(ctx, "d/"); err != nil || len(es) != want {
				t.Fatalf("listed %v, %v; want %d", es, err, want)
			}
		}
	}
	memory := json.RawMessage(`{"token":1}`)
	change(Text{Doc: Doc{Data: []byte("a")}, Note: json.RawMessage(`{"tag":1}`), Memory: memory})
	lists(1)
	change(Text{Gone: true, Memory: memory})
	lists(0)
	_, err := other.Get(ctx, "d/k")
	wantKind(t, err, errs.NotFound)
	wantKind(t, other.Delete(ctx, "d/k", "x"), errs.NotFound)
	if _, err := other.Put(ctx, "d/k", []byte("b"), ""); err != nil {
		t.Fatal(err)
	}
	lists(1)
	if x, err := other.Look(ctx, "d/k"); err != nil || x.Note != nil || string(x.Memory) != string(memory) {
		t.Errorf("made anew as %+v, %v", x, err)
	}
	_, err = other.Put(ctx, "d/k", []byte("c"), "")
	wantKind(t, err, errs.Conflict)
	if err := texts.Sweep(ctx, 0); err != nil {
		t.Fatal(err)
	}
	lists(1)
	change(Text{Gone: true, Memory: memory})
	for _, age := range []time.Duration{time.Hour, 0} {
		if err := texts.Sweep(ctx, age); err != nil {
			t.Fatal(err)
		}
		if x, err := texts.Look(ctx, "d/k"); err != nil || (x.Version == "") != (age == 0) {
			t.Errorf("after a sweep of what is older than %s there is %+v, %v", age, x, err)
		}
	}
	if es, err := s.List(ctx, ""); err != nil || len(es) != 0 {
		t.Errorf("left behind: %v, %v", es, err)
	}
}
