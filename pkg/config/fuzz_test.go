package config

import (
	"testing"
)

// FuzzLoadYAML checks that no document can break the loader, and that a document it accepts means
// the same after it was printed.
func FuzzLoadYAML(f *testing.F) {
	for _, seed := range []string{
		"server:\n  target: x\n", "server: &a {<<: *a}", "server:\n  join_members: [a, b]\n", "a: &a [*a]\nserver: *a",
		"server: {log: {level: debug}, limits: {rate: 1e6}}", "---\na: 1\n---\nb: 2", "server:\n  ring: ~\n", "\xff\xfe", "? [x]\n: y",
		"x: &x {a: &y {<<: [*x, *x]}}\nserver: {<<: [*y, *y, *x]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, s := newServer()
		if s.LoadYAML("f.yaml", data) != nil {
			return
		}
		for _, f := range s.Fields() {
			if f.Secret {
				_ = f.Set("")
			}
		}
		text := print(t, s, ModeEffective)
		_, again := newServer()
		if err := again.LoadYAML("printed.yaml", text); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		if s.Hash() != again.Hash() {
			t.Fatalf("printed and read again it differs:\n%s", text)
		}
	})
}
