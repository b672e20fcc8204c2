package frontend

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// echoing answers a request with the parameters that counted, packed for who says * or gzip.
type echoing struct{ asked int }

func (e *echoing) Run(_ context.Context, w *work.Work) error {
	e.asked++
	if err := w.Request.ParseForm(); err != nil {
		return err
	}
	form := w.Request.Form
	text := fmt.Sprint(form.Get("limit"), form.Get("start"), form["match[]"])
	if a := w.Request.Header.Get("Accept-Encoding"); a == "*" || a == "gzip" {
		w.Writer.Header().Set("Content-Encoding", "gzip")
		gz := gzip.NewWriter(w.Writer)
		_, _ = gz.Write([]byte(text))
		return gz.Close()
	}
	_, err := w.Writer.Write([]byte(text))
	return err
}

// TestReadsThatAreNoQueriesAreListedAndStopped: also those that may be kept, and whatever their body is.
func TestReadsThatAreNoQueriesAreListedAndStopped(t *testing.T) {
	f := started(t, Config{}, &queriers{}, limits.ResultsCacheTTLForLabels.With(limits.View{}, time.Hour))
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct{ method, target, kind, body, want string }{
		{"GET", "/prometheus/api/v1/labels", "", "", "GET /prometheus/api/v1/labels"},
		{"GET", "/prometheus/api/v1/series?match%5B%5D=%7Ba%3D%22b+c%22%7D&start=1", "", "", `GET /prometheus/api/v1/series?match[]={a="b c"}&start=1`},
		{"POST", "/prometheus/api/v1/series?limit=2", form, "match[]=up&limit=1", "POST /prometheus/api/v1/series?limit=1&limit=2&match[]=up"},
		{"POST", "/prometheus/api/v1/series", form, "x=" + strings.Repeat("y", 2*mostListedText), "POST /prometheus/api/v1/series?x=yyy"},
		{"POST", "/prometheus/api/v1/read", "application/x-protobuf", "\x01", "POST /prometheus/api/v1/read"},
	} {
		var body string
		begun := make(chan struct{})
		f.deps.Run = runner(func(ctx context.Context, w *work.Work) error {
			b, err := io.ReadAll(w.Request.Body)
			body = string(b)
			close(begun)
			<-ctx.Done()
			return errors.Join(ctx.Err(), err)
		})
		r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.kind)
		ended := make(chan error, 1)
		go func() { ended <- f.Respond(tenant.Inject(t.Context(), "a"), httptest.NewRecorder(), r) }()
		<-begun
		if list, _ := f.Running(t.Context(), Whose{Tenants: []tenant.ID{"b"}}); len(list) != 0 {
			t.Errorf("another tenant sees %v", list)
		}
		list, _ := f.Running(t.Context(), Whose{Tenants: []tenant.ID{"a"}})
		if len(list) != 1 || !strings.HasPrefix(list[0].Query, c.want) || len(list[0].Query) > mostListedText+len("...") {
			t.Fatalf("%s: listed as %+v", c.target, list)
		}
		if err := f.Stop(t.Context(), Whose{Tenants: []tenant.ID{"a"}}, list[0].ID); err != nil {
			t.Error(err)
		}
		if err := <-ended; errs.KindOf(err) != errs.Unprocessable || !strings.Contains(err.Error(), "stopped on request") {
			t.Errorf("%s: who asked got %v", c.target, err)
		}
		if body != c.body {
			t.Errorf("%s: of a body of %d bytes %d arrived", c.target, len(c.body), len(body))
		}
		if list, _ := f.Running(t.Context(), Whose{All: true}); len(list) != 0 {
			t.Errorf("afterwards there are %v", list)
		}
	}
}

type runner func(context.Context, *work.Work) error

func (r runner) Run(ctx context.Context, w *work.Work) error { return r(ctx, w) }

// TestKeptListsAreThoseOfTheSameRequest asks for lists in ways that look alike; each answer is held against
// that of a frontend that keeps nothing.
func TestKeptListsAreThoseOfTheSameRequest(t *testing.T) {
	view := limits.ResultsCacheTTLForLabels.With(limits.View{}, time.Hour)
	c := &changing{now: 1_700_000_000_000}
	caches, _ := caching(t, c, Config{}, view)
	plain := started(t, Config{}, &queriers{}, view)
	asked := &echoing{}
	caches.deps.Run, plain.deps.Run = asked, &echoing{}
	ask := func(f *Frontend, method, target, body, encoding string) string {
		t.Helper()
		r := httptest.NewRequest(method, "/prometheus/api/v1/labels?"+target, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		r.Header.Set("Accept-Encoding", encoding)
		rec := httptest.NewRecorder()
		if err := f.Respond(tenant.Inject(t.Context(), "a"), rec, r); err != nil {
			t.Fatal(err)
		}
		var in io.Reader = rec.Body
		if rec.Header().Get("Content-Encoding") == "gzip" {
			if encoding != "*" && encoding != "gzip" {
				t.Errorf("%s %s: packed for who takes %q", method, target, encoding)
			}
			gz, err := gzip.NewReader(rec.Body)
			if err != nil {
				t.Fatal(err)
			}
			in = gz
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const day1, day9 = "1699900000", "1699000000"
	for range 2 {
		for _, encoding := range []string{"*", "identity", "gzip", "gzip;q=0"} {
			for _, a := range [][3]string{
				{"GET", "limit=5&limit=3", ""}, {"GET", "limit=3&limit=5", ""},
				{"POST", "limit=5", "limit=3"}, {"POST", "limit=3", "limit=5"},
				{"GET", "start=" + day1 + "&start=" + day9, ""}, {"GET", "start=" + day9 + "&start=" + day1, ""},
				{"POST", "start=" + day1, "start=" + day9}, {"POST", "start=" + day9, "start=" + day1},
				{"POST", "match[]=b", "match[]=a"}, {"POST", "match[]=a", "match[]=c"},
			} {
				want := ask(plain, a[0], a[1], a[2], encoding)
				if got := ask(caches, a[0], a[1], a[2], encoding); got != want {
					t.Errorf("%s %s with the body %q answered %s, want %s", a[0], a[1], a[2], got, want)
				}
			}
		}
	}
	if asked.asked > 40 {
		t.Errorf("%d requests were answered anew, want at most one of each two", asked.asked)
	}
}
