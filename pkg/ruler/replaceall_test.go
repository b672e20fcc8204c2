package ruler

import (
	"context"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func anything(string) error { return nil }

const twoNamespaces = `a:
- name: g
  rules:
  - {record: x, expr: vector(1)}
b:
- name: g
  rules:
  - {record: x, expr: vector(2)}
- name: h
  rules:
  - {record: y, expr: vector(2)}
`

func TestAllRulesAreReplacedAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	replace := func(text, expect string, trial bool) (Changes, string, error) {
		return r.ReplaceAll(t.Context(), "t", Replacement{Data: []byte(text), Expect: expect, Trial: trial}, anything)
	}
	c, v1, err := replace(twoNamespaces, "", false)
	if err != nil || strings.Join(c.Added, " ") != "a/g b/g b/h" || v1 == "" {
		t.Fatalf("%+v, %q, %v", c, v1, err)
	}
	// What is read is what can be put, and changes nothing.
	out, err := r.Rules(t.Context(), "t", "", "")
	if err != nil {
		t.Fatal(err)
	}
	before := w.docs.last
	c, same, err := replace(string(out), v1, false)
	if err != nil || len(c.Unchanged) != 3 || len(c.Added)+len(c.Changed)+len(c.Removed) != 0 || same != v1 || w.docs.last != before {
		t.Errorf("%+v, %q, %v", c, same, err)
	}
	next := "b:\n- name: h\n  rules:\n  - {record: y, expr: vector(3)}\nc:\n- name: n\n  rules:\n  - {record: z, expr: vector(3)}\n"
	c, v, err := replace(next, v1, true)
	if err != nil || v != v1 || strings.Join(c.Removed, " ") != "a/g b/g" || strings.Join(c.Changed, " ") != "b/h" || strings.Join(c.Added, " ") != "c/n" {
		t.Errorf("trial: %+v, %q, %v", c, v, err)
	}
	if _, _, err := replace(next, "other", false); errs.KindOf(err) != errs.Conflict {
		t.Errorf("another version: %v", err)
	}
	if _, _, err := replace(next+"d:\n- name: n\n  rules:\n  - {record: z, expr: nonsense(}\n", v1, false); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), `namespace "d"`) {
		t.Errorf("one wrong namespace: %v", err)
	}
	if _, _, err := replace(" ", v1, false); errs.KindOf(err) != errs.Invalid {
		t.Errorf("nothing: %v", err)
	}
	if _, _, err := r.ReplaceAll(t.Context(), "t", Replacement{Data: []byte(next)}, func(namespace string) error {
		if namespace == "c" {
			return errs.New(errs.Denied, "protected")
		}
		return nil
	}); errs.KindOf(err) != errs.Denied {
		t.Errorf("a protected namespace: %v", err)
	}
	if got, err := r.Rules(t.Context(), "t", "", ""); err != nil || string(got) != string(out) {
		t.Errorf("after refusals: %s, %v", got, err)
	}
	if _, v2, err := replace(next, v1, false); err != nil || v2 == v1 {
		t.Errorf("%q, %v", v2, err)
	}
	if c, v, err := replace("{}", "", false); err != nil || v != "" || len(c.Removed) != 2 {
		t.Errorf("%+v, %q, %v", c, v, err)
	}
}

// jammed refuses to write one document.
type jammed struct {
	*shelf
	key string
}

func (j jammed) Put(ctx context.Context, key string, data []byte, expect docstore.Version) (docstore.Version, error) {
	if key == j.key {
		return "", errs.New(errs.Unavailable, "jammed")
	}
	return j.shelf.Put(ctx, key, data, expect)
}

func TestAReplacementThatFailsHalfWayIsUndone(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	if _, _, err := r.ReplaceAll(t.Context(), "t", Replacement{Data: []byte(twoNamespaces)}, anything); err != nil {
		t.Fatal(err)
	}
	before, err := r.Rules(t.Context(), "t", "", "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := DocumentKey("t", "z")
	if err != nil {
		t.Fatal(err)
	}
	r.deps.Documents = jammed{w.docs, key}
	text := strings.NewReplacer("vector(2)", "vector(9)", "a:\n", "n:\n").Replace(twoNamespaces) + "z:\n- name: g\n  rules:\n  - {record: x, expr: vector(1)}\n"
	if _, _, err := r.ReplaceAll(t.Context(), "t", Replacement{Data: []byte(text)}, anything); errs.KindOf(err) != errs.Unavailable {
		t.Fatal(err)
	}
	if after, err := r.Rules(t.Context(), "t", "", ""); err != nil || string(after) != string(before) {
		t.Errorf("%s, %v", after, err)
	}
}
