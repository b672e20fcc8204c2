package buckettest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// RunConditional checks compare-and-swap on the bucket that open returns, which must be empty.
// Every call of open opens the same bucket anew, like another process would.
func RunConditional(t *testing.T, open func(t *testing.T) bucket.Conditional) {
	laws := []struct {
		name  string
		check func(*testing.T, string, func(*testing.T) bucket.Conditional)
	}{
		{"what was written reads back with its version", swapReadsBack},
		{"a writer that saw an old version changes nothing", staleSwap},
		{"a removed object is absent and can be made again", removes},
		{"of many writers one succeeds each time", swapRace},
		{"a listing has every object with its version", listsVersions},
	}
	for i, law := range laws {
		t.Run(law.name, func(t *testing.T) { law.check(t, "law"+strconv.Itoa(i)+"/", open) })
	}
}

func swap(t *testing.T, b bucket.Conditional, name, data, expect string) string {
	t.Helper()
	v, err := b.Swap(t.Context(), name, []byte(data), expect)
	if err != nil || v == "" {
		t.Fatalf("swap %s from %q: version %q, %v", name, expect, v, err)
	}
	return v
}

func swapReadsBack(t *testing.T, dir string, open func(*testing.T) bucket.Conditional) {
	b := open(t)
	if _, err := b.Read(t.Context(), dir+"doc"); !errors.Is(err, bucket.ErrAbsent) {
		t.Fatalf("read of nothing: %v", err)
	}
	v := swap(t, b, dir+"doc", "one", "")
	w := swap(t, b, dir+"doc", "two", v)
	if v == w {
		t.Fatalf("both versions are %q", v)
	}
	got, err := open(t).Read(t.Context(), dir+"doc")
	if err != nil || string(got.Data) != "two" || got.Version != w || got.Modified.IsZero() {
		t.Fatalf("read %+v, %v; want two at %s", got, err, w)
	}
	if _, err := b.Swap(t.Context(), dir+"doc", nil, w); err == nil {
		t.Fatal("an empty object was written")
	}
}

func staleSwap(t *testing.T, dir string, open func(*testing.T) bucket.Conditional) {
	a, b := open(t), open(t)
	v := swap(t, a, dir+"doc", "one", "")
	w := swap(t, b, dir+"doc", "two", v)
	for _, expect := range []string{"", v} {
		if _, err := a.Swap(t.Context(), dir+"doc", []byte("late"), expect); !errors.Is(err, bucket.ErrChanged) {
			t.Fatalf("swap from %q: %v, want it refused", expect, err)
		}
		if err := a.Remove(t.Context(), dir+"doc", expect); !errors.Is(err, bucket.ErrChanged) {
			t.Fatalf("remove at %q: %v, want it refused", expect, err)
		}
	}
	if _, err := a.Swap(t.Context(), dir+"absent", []byte("late"), w); !errors.Is(err, bucket.ErrChanged) {
		t.Fatalf("swap of an absent object: %v, want it refused", err)
	}
	if got, err := a.Read(t.Context(), dir+"doc"); err != nil || string(got.Data) != "two" {
		t.Fatalf("read %q, %v", got.Data, err)
	}
}

func removes(t *testing.T, dir string, open func(*testing.T) bucket.Conditional) {
	b := open(t)
	v := swap(t, b, dir+"doc", "one", "")
	if err := b.Remove(t.Context(), dir+"doc", v); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(t.Context(), dir+"doc"); !errors.Is(err, bucket.ErrAbsent) {
		t.Fatalf("read after removal: %v", err)
	}
	if os, err := b.List(t.Context(), dir); err != nil || len(os) != 0 {
		t.Fatalf("list after removal: %v, %v", os, err)
	}
	if _, err := b.Swap(t.Context(), dir+"doc", []byte("late"), v); !errors.Is(err, bucket.ErrChanged) {
		t.Fatalf("swap of the removed version: %v, want it refused", err)
	}
	swap(t, b, dir+"doc", "again", "")
	if got, err := b.Read(t.Context(), dir+"doc"); err != nil || string(got.Data) != "again" {
		t.Fatalf("read %q, %v", got.Data, err)
	}
}

func swapRace(t *testing.T, dir string, open func(*testing.T) bucket.Conditional) {
	const writers, each = 4, 8
	var wg sync.WaitGroup
	for range writers {
		b := open(t)
		wg.Go(func() {
			for done := 0; done < each; {
				old, err := b.Read(t.Context(), dir+"counter")
				if err != nil && !errors.Is(err, bucket.ErrAbsent) {
					t.Errorf("read: %v", err)
					return
				}
				n, _ := strconv.Atoi(string(old.Data)) // absent: 0
				_, err = b.Swap(t.Context(), dir+"counter", []byte(strconv.Itoa(n+1)), old.Version)
				switch {
				case err == nil:
					done++
				case !errors.Is(err, bucket.ErrChanged):
					t.Errorf("swap: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	got, err := open(t).Read(t.Context(), dir+"counter")
	if want := strconv.Itoa(writers * each); err != nil || string(got.Data) != want {
		t.Fatalf("counted %q, %v; want %s", got.Data, err, want)
	}
}

func listsVersions(t *testing.T, dir string, open func(*testing.T) bucket.Conditional) {
	b := open(t)
	versions := map[string]string{}
	for i := range 25 {
		name := fmt.Sprintf("%sa/%02d/doc", dir, i)
		versions[name] = swap(t, b, name, "body "+name, "")
	}
	swap(t, b, dir+"b/doc", "other", "")
	os, err := b.List(t.Context(), dir+"a/")
	if err != nil || len(os) != len(versions) {
		t.Fatalf("listed %d, %v; want %d", len(os), err, len(versions))
	}
	if !slices.IsSortedFunc(os, func(x, y bucket.Object) int {
		if x.Name < y.Name {
			return -1
		}
		return 1
	}) {
		t.Error("the listing is not sorted")
	}
	for _, o := range os {
		if versions[o.Name] != o.Version || o.Size != int64(len("body "+o.Name)) {
			t.Errorf("%s: version %q, %d bytes; want %q, %d", o.Name, o.Version, o.Size, versions[o.Name], len("body "+o.Name))
		}
	}
}
