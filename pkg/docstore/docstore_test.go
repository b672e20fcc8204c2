package docstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func open(t *testing.T) *Store {
	t.Helper()
	b, err := bucket.NewConditionalFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(b, Prefix, prometheus.NewRegistry())
}

func wantKind(t *testing.T, err error, kind errs.Kind) {
	t.Helper()
	if err == nil || errs.KindOf(err) != kind {
		t.Fatalf("got %v (%v), want kind %v", err, errs.KindOf(err), kind)
	}
}

func TestADocumentChangesOnlyFromTheVersionThatWasSeen(t *testing.T) {
	s, ctx := open(t), t.Context()
	_, err := s.Get(ctx, "rules/a/ns")
	wantKind(t, err, errs.NotFound)
	v, err := s.Put(ctx, "rules/a/ns", []byte("one"), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(ctx, "rules/a/ns", []byte("other"), "")
	wantKind(t, err, errs.Conflict)
	w, err := s.Put(ctx, "rules/a/ns", []byte("two"), v)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Delete(ctx, "rules/a/ns", v), errs.Conflict)
	d, err := s.Get(ctx, "rules/a/ns")
	if err != nil || string(d.Data) != "two" || d.Version != w || d.Key != "rules/a/ns" {
		t.Fatalf("got %+v, %v", d, err)
	}
	if err := s.Delete(ctx, "rules/a/ns", w); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Delete(ctx, "rules/a/ns", w), errs.NotFound)
	if _, err := s.Overwrite(ctx, "rules/a/ns", []byte("three")); err != nil {
		t.Fatal(err)
	}
}

func TestAListingHasTheWholeSubtreeInOrder(t *testing.T) {
	s := open(t)
	for _, k := range []string{"rules/b/x", "rules/a/y", "rules/a/deep/z", "alerts/a"} {
		if _, err := s.Put(t.Context(), k, []byte(k), ""); err != nil {
			t.Fatal(err)
		}
	}
	es, err := s.List(t.Context(), "rules/a/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range es {
		keys = append(keys, e.Key)
		if d, err := s.Get(t.Context(), e.Key); err != nil || d.Version != e.Version || e.Size != int64(len(d.Data)) {
			t.Errorf("%s is listed as %+v and read as %+v, %v", e.Key, e, d, err)
		}
	}
	if want := []string{"rules/a/deep/z", "rules/a/y"}; !slices.Equal(keys, want) {
		t.Errorf("listed %v, want %v", keys, want)
	}
}

func TestNoUpdateOfManyIsLost(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 5 {
				_, err := s.Update(t.Context(), "counter", func(old Doc) ([]byte, error) {
					n, _ := strconv.Atoi(string(old.Data))
					return []byte(strconv.Itoa(n + 1)), nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d, err := s.Get(t.Context(), "counter"); err != nil || string(d.Data) != "30" {
		t.Fatalf("counted %s, %v; want 30", d.Data, err)
	}
}

func TestAKeyCannotLeaveTheStore(t *testing.T) {
	s := open(t)
	for _, key := range []string{"", "/abs", "../up", "a/../../up", "a//b", "a/", ".."} {
		_, err := s.Get(t.Context(), key)
		wantKind(t, err, errs.Invalid)
		_, err = s.Put(t.Context(), key, []byte("x"), "")
		wantKind(t, err, errs.Invalid)
	}
}

// lossy does what it is told and then says that it failed.
type lossy struct {
	bucket.Conditional
	lose atomic.Int32
}

var errLost = errors.New("the answer was lost")

func (l *lossy) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	v, err := l.Conditional.Swap(ctx, name, data, expect)
	if l.lose.Add(-1) >= 0 {
		return "", errLost
	}
	return v, err
}

func (l *lossy) Remove(ctx context.Context, name, expect string) error {
	err := l.Conditional.Remove(ctx, name, expect)
	if l.lose.Add(-1) >= 0 {
		return errLost
	}
	return err
}

func TestAChangeWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := bucket.NewConditionalFilesystem(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := &lossy{Conditional: b}
		s := New(l, "docs", prometheus.NewRegistry())
		l.lose.Store(2)
		v, err := s.Put(t.Context(), "doc", []byte("one"), "")
		if err != nil || v == "" {
			t.Fatalf("put: %q, %v", v, err)
		}
		l.lose.Store(1)
		if err := s.Delete(t.Context(), "doc", v); err != nil {
			t.Fatal(err)
		}
		l.lose.Store(100)
		_, err = s.Put(t.Context(), "doc", []byte("two"), "")
		wantKind(t, err, errs.Unavailable)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}
