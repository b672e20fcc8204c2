package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// flaky is a bucket that can be away.
type flaky struct {
	objstore.Bucket
	away bool
}

func (f *flaky) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if f.away {
		return errors.New("away")
	}
	return f.Bucket.Upload(ctx, name, r, opts...)
}

var start = time.Date(2026, 1, 2, 23, 59, 0, 0, time.UTC)

func openLog(t *testing.T, b objstore.Bucket, dir string) *Log {
	t.Helper()
	l, err := New(Config{Dir: dir, Interval: time.Minute}, Deps{
		Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Bucket: b,
		Sign:   func(digest string) []byte { return []byte("signed " + digest) },
		Verify: func(digest string, signature []byte) bool { return string(signature) == "signed "+digest }, Now: func() time.Time { return start.Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func record(n int, event string) *Record {
	return &Record{EventTime: start.Add(time.Duration(n) * time.Second), EventName: event, EventID: fmt.Sprint(n), RecipientAccountID: "1", UserIdentity: Identity{ARN: "arn:user/alice"}}
}

func find(t *testing.T, l *Log, q Query) (string, Found) {
	t.Helper()
	q.From = start.Add(-time.Hour)
	f, err := l.Find(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range f.Records {
		ids = append(ids, r.EventID)
	}
	return strings.Join(ids, ","), f
}

func TestRecordsOutliveAwayBucketsAndRestarts(t *testing.T) {
	b := &flaky{Bucket: objstore.NewInMemBucket(), away: true}
	dir := t.TempDir()
	l := openLog(t, b, dir)
	for n := range 3 {
		if err := l.Write(record(n, "CreateWorkspace")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(record(60, "DeleteWorkspace")); err != nil { // after midnight
		t.Fatal(err)
	}
	if ids, _ := find(t, l, Query{}); ids != "60,2,1,0" {
		t.Errorf("while the bucket is away: %s", ids)
	}
	// The process dies in the middle of a line.
	f, err := os.OpenFile(filepath.Join(dir, currentFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"eventName":"Cut`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	l = openLog(t, b, dir)
	if err := l.Write(record(61, "TagResource")); err != nil {
		t.Fatal(err)
	}
	b.away = false
	if err := l.stopping(nil); err != nil {
		t.Fatal(err)
	}
	if ids, found := find(t, l, Query{}); ids != "61,60,2,1,0" || len(found.Damaged) != 0 {
		t.Errorf("in the bucket: %s, %v", ids, found.Damaged)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.jsonl")); len(left) != 1 {
		t.Errorf("left on the disk: %v", left)
	}
	if err := l.Write(record(99, "x")); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("written after the end: %v", err)
	}
}

func TestQueriesSelect(t *testing.T) {
	l := openLog(t, objstore.NewInMemBucket(), t.TempDir())
	for n, event := range []string{"CreateWorkspace", "DeleteWorkspace", "CreateWorkspace"} {
		r := record(n, event)
		if n == 2 {
			r.ErrorCode = "AccessDenied"
		}
		if err := l.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	for want, q := range map[string]Query{
		"2,0":   {Event: "CreateWorkspace"},
		"2":     {Errors: true},
		"":      {Account: "2"},
		"2,1,0": {Account: "1", Caller: "alice"},
	} {
		if ids, f := find(t, l, q); ids != want || f.NextToken != "" {
			t.Errorf("%+v: %s, more %q", q, ids, f.NextToken)
		}
	}
	if _, err := l.Find(t.Context(), Query{From: start, To: start.Add(-time.Second)}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a range that ends before it begins: %v", err)
	}
}

func TestWhatWasChangedOrTakenOutShows(t *testing.T) {
	b := objstore.NewInMemBucket()
	l := openLog(t, b, t.TempDir())
	for n := range 4 {
		if err := l.Write(record(n, "CreateWorkspace")); err != nil {
			t.Fatal(err)
		}
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	if err := b.Iter(t.Context(), "", func(name string) error { names = append(names, name); return nil }, objstore.WithRecursiveIter()); err != nil {
		t.Fatal(err)
	}
	if len(names) != 4 {
		t.Fatalf("objects: %v", names)
	}
	keep, err := l.get(t.Context(), names[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), names[1]); err != nil {
		t.Fatal(err)
	}
	if _, f := find(t, l, Query{}); len(f.Damaged) != 1 || !strings.Contains(f.Damaged[0], "missing") {
		t.Errorf("taken out: %v", f.Damaged)
	}
	// One who cannot sign changes a record and makes the digest fit.
	keep.Records = []json.RawMessage{json.RawMessage(strings.Replace(string(keep.Records[0]), "CreateWorkspace", "Nothing", 1))}
	keep.Digest = keep.digest()
	l2 := openLog(t, b, t.TempDir())
	l2.chain = chain{Writer: keep.Writer, Number: keep.Number - 1, Previous: keep.Previous, file: filepath.Join(t.TempDir(), chainFile)}
	l2.deps.Sign = func(string) []byte { return []byte("forged") }
	if err := l2.put(t.Context(), keep.Records); err != nil {
		t.Fatal(err)
	}
	if _, f := find(t, l, Query{}); len(f.Damaged) == 0 {
		t.Error("a changed record does not show")
	}
}
