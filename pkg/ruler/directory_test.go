package ruler

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestRulesOfADirectoryAreEvaluatedAndCannotBeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		write := func(name, text string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("t/shop rules.yaml", "groups:\n- {name: g, interval: 10s, query_offset: 0s, rules: [{record: first, expr: vector(1)}]}\n")
		write("t/.hidden", "x")
		write("not a tenant!?/x", "x")
		write("README", "x")
		d, err := OpenDirectory(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		w := newWorld(t)
		r := w.ruler(t, "a", nil)
		r.deps.Documents = d
		defer start(t, r)()
		time.Sleep(time.Minute)
		if n := len(w.store.times(t, "first")); n < 4 {
			t.Errorf("%d samples", n)
		}
		write("t/shop rules.yaml", "groups:\n- {name: g, interval: 10s, query_offset: 0s, rules: [{record: second, expr: vector(1)}]}\n")
		time.Sleep(2 * time.Minute)
		if n := len(w.store.times(t, "second")); n < 4 {
			t.Errorf("%d samples after a change of the file", n)
		}
		if text, err := r.Rules(t.Context(), "t", "shop rules.yaml", "g"); err != nil || string(text) != "{name: g, interval: 10s, query_offset: 0s, rules: [{record: second, expr: vector(1)}]}\n" {
			t.Errorf("%q, %v", text, err)
		}
		if err := r.SetGroup(t.Context(), "t", "x", []byte("name: g\nrules: [{record: a, expr: b}]\n")); errs.KindOf(err) != errs.Unimplemented {
			t.Errorf("put: %v", err)
		}
		if err := r.DeleteNamespace(t.Context(), "t", "shop rules.yaml"); errs.KindOf(err) != errs.Unimplemented {
			t.Errorf("delete: %v", err)
		}
		for _, name := range []string{"../README", "..", "t/../../x"} {
			if _, err := r.Rules(t.Context(), "t", name, "g"); errs.KindOf(err) == errs.Internal || err == nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
