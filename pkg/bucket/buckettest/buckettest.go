// Package buckettest owns the conformance suite that every object storage backend must pass.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thanos-io/objstore"
)

// Run checks the bucket that open returns, which must be empty. Every law gets a bucket of its own.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	laws := []struct {
		name  string
		check func(*testing.T, objstore.Bucket)
	}{
		{"an uploaded object reads back", readsBack},
		{"an absent object is not found", absent},
		{"the last upload wins", overwrites},
		{"a broken upload leaves no object", brokenUpload},
		{"a broken upload keeps the old object", brokenOverwrite},
		{"ranges read their bytes", ranges},
		{"listing is sorted and shows directories", lists},
		{"a deleted object is gone and its neighbours stay", deletes},
		{"a cancelled context does nothing", cancelled},
	}
	for _, law := range laws {
		t.Run(law.name, func(t *testing.T) {
			b := open(t)
			law.check(t, b)
		})
	}
}

func put(t *testing.T, b objstore.Bucket, name, body string) {
	t.Helper()
	if err := b.Upload(t.Context(), name, strings.NewReader(body)); err != nil {
		t.Fatalf("upload %s: %v", name, err)
	}
}

func get(t *testing.T, b objstore.Bucket, name string) string {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	body, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return string(body)
}

func list(t *testing.T, b objstore.Bucket, dir string, opts ...objstore.IterOption) []string {
	t.Helper()
	var names []string
	if err := b.Iter(t.Context(), dir, func(n string) error { names = append(names, n); return nil }, opts...); err != nil {
		t.Fatalf("list %q: %v", dir, err)
	}
	return names
}

// readsBack leaves empty objects out: not all drivers read them, and no part of a block is empty.
func readsBack(t *testing.T, b objstore.Bucket) {
	for _, size := range []int{1, 4096, 3<<20 + 7} {
		name := fmt.Sprintf("tenant/sizes/%d", size)
		body := bytes.Repeat([]byte("amphora"), size/7+1)[:size]
		if err := b.Upload(t.Context(), name, bytes.NewReader(body)); err != nil {
			t.Fatalf("upload %s: %v", name, err)
		}
		if got := get(t, b, name); got != string(body) {
			t.Errorf("%s: read %d bytes that differ from the %d written", name, len(got), size)
		}
		attrs, err := b.Attributes(t.Context(), name)
		if err != nil || attrs.Size != int64(size) {
			t.Errorf("%s: attributes %+v, %v", name, attrs, err)
		}
		if ok, err := b.Exists(t.Context(), name); !ok || err != nil {
			t.Errorf("%s: exists = %v, %v", name, ok, err)
		}
	}
}

func absent(t *testing.T, b objstore.Bucket) {
	put(t, b, "dir/object", "x")
	for _, name := range []string{"nothing", "dir/nothing", "dir"} {
		if _, err := b.Get(t.Context(), name); !b.IsObjNotFoundErr(err) {
			t.Errorf("get %s: %v, want not found", name, err)
		}
		if _, err := b.Attributes(t.Context(), name); !b.IsObjNotFoundErr(err) {
			t.Errorf("attributes of %s: %v, want not found", name, err)
		}
		if ok, err := b.Exists(t.Context(), name); ok || err != nil {
			t.Errorf("exists %s = %v, %v", name, ok, err)
		}
	}
	if b.IsObjNotFoundErr(nil) || b.IsObjNotFoundErr(io.EOF) {
		t.Error("another error counts as not found")
	}
	if got := list(t, b, "nothing/here"); len(got) != 0 {
		t.Errorf("list of nothing: %v", got)
	}
}

func overwrites(t *testing.T, b objstore.Bucket) {
	put(t, b, "o", "a longer first body")
	put(t, b, "o", "second")
	if got := get(t, b, "o"); got != "second" {
		t.Errorf("got %q", got)
	}
}

var errBroken = errors.New("the source broke")

func broken() io.Reader {
	return io.MultiReader(strings.NewReader("half of the bytes"), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

func brokenUpload(t *testing.T, b objstore.Bucket) {
	if err := b.Upload(t.Context(), "dir/o", broken()); !errors.Is(err, errBroken) {
		t.Errorf("upload of a broken source: %v", err)
	}
	if ok, err := b.Exists(t.Context(), "dir/o"); ok || err != nil {
		t.Errorf("a partial object is there: %v, %v", ok, err)
	}
	if got := list(t, b, "", objstore.WithRecursiveIter()); len(got) != 0 {
		t.Errorf("the bucket lists %v", got)
	}
}

func brokenOverwrite(t *testing.T, b objstore.Bucket) {
	put(t, b, "o", "old")
	if err := b.Upload(t.Context(), "o", broken()); !errors.Is(err, errBroken) {
		t.Errorf("upload of a broken source: %v", err)
	}
	if got := get(t, b, "o"); got != "old" {
		t.Errorf("got %q, want the old object", got)
	}
}

func ranges(t *testing.T, b objstore.Bucket) {
	put(t, b, "o", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 3, "012"}, {4, 2, "45"}, {7, -1, "789"}, {8, 100, "89"}} {
		r, err := b.GetRange(t.Context(), "o", c.off, c.n)
		if err != nil {
			t.Fatalf("range %d+%d: %v", c.off, c.n, err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || string(got) != c.want {
			t.Errorf("range %d+%d = %q, %v; want %q", c.off, c.n, got, err, c.want)
		}
	}
	if _, err := b.GetRange(t.Context(), "absent", 0, 1); !b.IsObjNotFoundErr(err) {
		t.Errorf("range of an absent object: %v, want not found", err)
	}
}

func lists(t *testing.T, b objstore.Bucket) {
	all := []string{"a-b", "a/1/x", "a/1/y", "a/2", "b"}
	for _, n := range []int{3, 0, 4, 2, 1} {
		put(t, b, all[n], n2s(n))
	}
	for _, c := range []struct {
		dir  string
		want []string
	}{{"", []string{"a-b", "a/", "b"}}, {"a", []string{"a/1/", "a/2"}}, {"a/", []string{"a/1/", "a/2"}}} {
		if got := sorted(list(t, b, c.dir)); !slices.Equal(got, c.want) {
			t.Errorf("list %q = %v, want %v", c.dir, got, c.want)
		}
	}
	if got := list(t, b, "", objstore.WithRecursiveIter()); !slices.Equal(got, all) {
		t.Errorf("recursive list = %v, want %v", got, all)
	}
	stop := errors.New("stop")
	if err := b.Iter(t.Context(), "", func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the callback came back as %v", err)
	}
}

// sorted orders one level of a listing, in which drivers may put directories last.
func sorted(s []string) []string { slices.Sort(s); return s }

func n2s(n int) string { return fmt.Sprint(n) }

func deletes(t *testing.T, b objstore.Bucket) {
	put(t, b, "t/block/meta.json", "1")
	put(t, b, "t/block/index", "2")
	if err := b.Delete(t.Context(), "t/block/index"); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, "t", objstore.WithRecursiveIter()); !slices.Equal(got, []string{"t/block/meta.json"}) {
		t.Errorf("left: %v", got)
	}
	if err := b.Delete(t.Context(), "t/block/meta.json"); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, ""); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// Churn checks that concurrent uploads and deletes in one directory do not disturb each other. It
// is for drivers of our own; behind a remote one this is the server's matter.
func Churn(t *testing.T, b objstore.Bucket) {
	const workers, rounds = 4, 100
	errc := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errc[w] = churn(t.Context(), b, w, rounds) })
	}
	wg.Wait()
	if err := errors.Join(errc...); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, "shared", objstore.WithRecursiveIter()); len(got) != workers {
		t.Errorf("kept %v, want one object of each of %d workers", got, workers)
	}
}

// churn writes and deletes in a directory that is empty from time to time, and ends with a write.
func churn(ctx context.Context, b objstore.Bucket, w, rounds int) error {
	name := fmt.Sprintf("shared/dir/%d", w)
	for range rounds {
		if err := b.Upload(ctx, name, strings.NewReader(name)); err != nil {
			return err
		}
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
	}
	return b.Upload(ctx, name, strings.NewReader(name))
}

func cancelled(t *testing.T, b objstore.Bucket) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Upload(ctx, "o", strings.NewReader("x")); err == nil {
		t.Error("upload went on")
	}
	if ok, err := b.Exists(t.Context(), "o"); ok || err != nil {
		t.Errorf("exists = %v, %v", ok, err)
	}
}
