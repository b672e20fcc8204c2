package audit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// reads counts the objects that are fetched.
type reads struct {
	objstore.Bucket
	gets int
}

func (b *reads) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.gets++
	return b.Bucket.Get(ctx, name)
}

// clocked is a log whose time is what now says.
func clocked(t *testing.T, b objstore.Bucket, now *time.Time) *Log {
	t.Helper()
	l, err := New(Config{Dir: t.TempDir(), Interval: time.Minute}, Deps{
		Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Bucket: b, Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPagesHoldEveryRecordOnceTheNewestFirst has three processes that write at the same time, over three days,
// with batches of different lengths, and records of the same second.
func TestPagesHoldEveryRecordOnceTheNewestFirst(t *testing.T) {
	b, now := objstore.NewInMemBucket(), start
	logs := []*Log{clocked(t, b, &now), clocked(t, b, &now), clocked(t, b, &now)}
	var want []string
	for n := range 300 {
		now = start.Add(time.Duration(n/2) * 11 * time.Minute)
		id := fmt.Sprintf("%04d", n)
		r := &Record{EventTime: now.Truncate(time.Second), EventName: "CreateWorkspace", EventID: id}
		if n%7 == 0 { // a call that took long
			r.EventTime = r.EventTime.Add(-time.Minute)
		}
		if err := logs[n%3].Write(r); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%020d %s", r.EventTime.UnixNano(), id))
		if n < 290 && n%(5+n%3) == 0 {
			if err := logs[n%3].tick(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, l := range logs[1:] { // the first still has records on its disk
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	slices.Reverse(want)
	for _, limit := range []int{1, 7, 100, 299, 300, 1000} {
		var got []string
		next := ""
		for page := 0; page == 0 || next != ""; page++ {
			if page > len(want) {
				t.Fatalf("limit %d: pages do not end", limit)
			}
			f, err := logs[0].Find(t.Context(), Query{From: start.Add(-time.Hour), To: now, Limit: limit, Next: next})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Records) > limit || len(f.Damaged) > 0 {
				t.Fatalf("limit %d: %d records, damaged %v", limit, len(f.Records), f.Damaged)
			}
			for _, r := range f.Records {
				got = append(got, fmt.Sprintf("%020d %s", r.EventTime.UnixNano(), r.EventID))
			}
			next = f.NextToken
			if limit == 1 && page == 60 {
				break // the others go to the end
			}
		}
		if limit > 1 && len(got) != len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Errorf("limit %d: %d records of %d, or in another order", limit, len(got), len(want))
		}
	}
}

func TestTheNewestRecordsAreFoundWithoutReadingAllOfThem(t *testing.T) {
	b, now := &reads{Bucket: objstore.NewInMemBucket()}, start
	l := clocked(t, b, &now)
	for n := range 200 {
		now = start.Add(time.Duration(n) * time.Hour)
		if err := l.Write(&Record{EventTime: now, EventID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
		if err := l.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := l.Find(t.Context(), Query{From: start, To: now, Limit: 3})
	if err != nil || len(f.Records) != 3 || f.Records[0].EventID != "199" {
		t.Fatalf("%v %+v", err, f)
	}
	if b.gets > 6 {
		t.Errorf("%d batches were read for three records", b.gets)
	}
	b.gets = 0
	f, err = l.Find(t.Context(), Query{From: start, To: now, Limit: 3, Next: f.NextToken})
	if err != nil || len(f.Records) != 3 || f.Records[0].EventID != "196" {
		t.Fatalf("%v %+v", err, f)
	}
	if b.gets > 6 {
		t.Errorf("%d batches were read for the second page", b.gets)
	}
}

func TestABatchSpansMinutes(t *testing.T) {
	b, now := objstore.NewInMemBucket(), start
	l := clocked(t, b, &now)
	for n := range 3 {
		now = start.Add(time.Duration(n) * maxBatchSpan)
		if err := l.Write(&Record{EventTime: now, EventID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if waiting := l.waiting(); len(waiting) != 1 {
		t.Errorf("batches that ended: %v", waiting)
	}
	f, err := l.Find(t.Context(), Query{})
	if err != nil || len(f.Records) != 3 {
		t.Errorf("%v %+v", err, f)
	}
}

func TestATokenOfNobodyIsRefused(t *testing.T) {
	now := start
	l := clocked(t, objstore.NewInMemBucket(), &now)
	for _, next := range []string{"x", "!", "MTIz", " "} {
		if _, err := l.Find(t.Context(), Query{Next: next}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", next, err)
		}
	}
}
