package wal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestALookAtALogFindsDamageAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Replay(t.Context(), func(int, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	put := func() {
		t.Helper()
		for range 3 {
			if _, err := l.Append([]byte("a record of some length, so that there is something to damage")).Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	put()
	if _, err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	put()
	look := func() []Examined {
		t.Helper()
		files, err := Examine(dir)
		if err != nil || len(files) != 2 {
			t.Fatalf("%+v, %v", files, err)
		}
		return files
	}
	for _, f := range look() { // while the log is open
		if f.Damage != "" || f.Torn || f.Blocks == 0 {
			t.Errorf("%+v", f)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	old, fresh := filepath.Join(dir, look()[0].Name), filepath.Join(dir, look()[1].Name)
	change(t, old, func(b []byte) []byte { b[fileHeaderBytes+blockHeaderBytes] ^= 1; return b })
	change(t, fresh, func(b []byte) []byte { return b[:len(b)-1] })
	if f := look(); f[0].Damage == "" || f[1].Damage != "" || !f[1].Torn {
		t.Errorf("%+v", f)
	}
}

func change(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, how(b), 0o600); err != nil {
		t.Fatal(err)
	}
}
