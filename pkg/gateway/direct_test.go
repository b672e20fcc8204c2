package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// readOf is a request as message.to makes it of a read.
func readOf(ctx context.Context, method, url, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	if body != "" {
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	r.Header["X-Idempotency-Key"] = nil
	r.Header.Set("User-Agent", "")
	return r
}

// none is for what must not be sent by another way.
type none struct{ t *testing.T }

func (n none) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s is not sent directly", r.Method, r.URL)
	return nil, errors.New("not directly")
}

// counted returns a server and how many connections it got.
func counted(t *testing.T, h http.HandlerFunc) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv, n
}

// TestDirectReadsAreAnsweredAsByTheLibrary compares answers of every form, which take one connection together.
func TestDirectReadsAreAnsweredAsByTheLibrary(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 20_000)
	srv, connections := counted(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Got", fmt.Sprint(r.Method, r.Host, r.URL, len(r.Header), r.ContentLength, len(body)))
		switch r.URL.Path {
		case "/empty":
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/early":
			w.Header().Set("Link", "</x>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "late")
		case "/large":
			_, _ = io.WriteString(w, large)
		case "/pieces":
			w.Header().Set("Trailer", "X-End")
			for i := range 3 {
				_, _ = fmt.Fprint(w, i)
				w.(http.Flusher).Flush()
			}
			w.Header().Set("X-End", "here")
		default:
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(body)
		}
	})
	library, theirs := newTransport(false, UpstreamDeps{}), new(atomic.Int64)
	dial := library.DialContext
	library.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		theirs.Add(1) // it drops one of which it noticed late that the request was sent
		return dial(ctx, network, addr)
	}
	defer library.CloseIdleConnections()
	d := newDirect(none{t})
	for _, path := range []string{"/empty", "/nothing", "/early", "/large", "/pieces", "/echo?a=b"} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			for _, body := range []string{"", "query", large} {
				if body != "" && method != "POST" {
					continue
				}
				var got [2]string
				for i, by := range []http.RoundTripper{library, d} {
					resp, err := by.RoundTrip(readOf(t.Context(), method, srv.URL+path, body))
					if err != nil {
						t.Fatalf("%s %s: %v", method, path, err)
					}
					all, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Fatalf("%s %s: %v", method, path, err)
					}
					_ = resp.Body.Close()
					resp.Header.Del("Date")
					got[i] = fmt.Sprint(resp.Status, resp.Proto, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Trailer, string(all))
				}
				if got[0] != got[1] {
					t.Errorf("%s %s with %d bytes: %.300s, by the library %.300s", method, path, len(body), got[1], got[0])
				}
			}
		}
	}
	if n := connections.Load() - theirs.Load(); n != 1 {
		t.Errorf("%d connections beside %d of the library, want 1", n, theirs.Load())
	}
}

// TestWhatIsNoSmallReadGoesByTheLibrary has requests that may not be sent twice, stream or ask for another protocol.
func TestWhatIsNoSmallReadGoesByTheLibrary(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"not marked":    func(r *http.Request) { delete(r.Header, "X-Idempotency-Key") },
		"it streams":    func(r *http.Request) { r.GetBody = nil },
		"by TLS":        func(r *http.Request) { r.URL.Scheme = "https" },
		"it upgrades":   func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"it expects":    func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"with trailers": func(r *http.Request) { r.Trailer = http.Header{"X-End": nil} },
	} {
		var sent *http.Request
		d := newDirect(hosts{"a": func(r *http.Request) (*http.Response, error) { sent = r; return &http.Response{}, nil }})
		r := readOf(t.Context(), "POST", "http://a/x", "query")
		if change(r); !d.takes(readOf(t.Context(), "POST", "http://a/x", "query")) {
			t.Fatal("no read at all is sent directly")
		}
		if _, err := d.RoundTrip(r); err != nil || sent != r {
			t.Errorf("%s: sent %p, want %p; %v", name, sent, r, err)
		}
	}
}

// raw answers each request of every connection with what answer says: of the nth connection, the mth request. Nothing
// closes the connection.
func raw(t *testing.T, answer func(conn, request int) string) (url string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for m := 0; ; m++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					text := answer(n, m)
					if _, err := io.WriteString(c, text); err != nil || text == "" {
						return
					}
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

func sized(text string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

// get returns the body of an answer.
func get(ctx context.Context, d *direct, url string) (string, error) {
	resp, err := d.RoundTrip(readOf(ctx, "POST", url, "query"))
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestAConnectionIsUsedAgainOnlyAfterAWholeAnswer has answers after which it must not be.
func TestAConnectionIsUsedAgainOnlyAfterAWholeAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		first string
		want  string
		fails bool
	}{
		"more than was asked for":   {first: sized("one") + "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", want: "one"},
		"it says that it closes":    {first: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none", want: "one"},
		"of an old server":          {first: "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\none", want: "one"},
		"no HTTP":                   {first: "SSH-2.0-OpenSSH_9.7\r\n\r\n", fails: true},
		"a header without an end":   {first: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*mostHeaderBytes) + "\r\n\r\n", fails: true},
		"a length that is none":     {first: "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\none", fails: true},
		"a chunk that is none":      {first: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\none\r\n0\r\n\r\n", fails: true},
		"two lengths that disagree": {first: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\none", fails: true},
	} {
		var connections atomic.Int64
		url := raw(t, func(conn, _ int) string {
			connections.Store(int64(conn) + 1)
			if conn == 0 {
				return test.first
			}
			return sized("two")
		})
		d := newDirect(none{t})
		if got, err := get(t.Context(), d, url); got != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for range 2 {
			if got, err := get(t.Context(), d, url); got != "two" || err != nil {
				t.Errorf("%s, the next: %q, %v", name, got, err)
			}
		}
		if n := connections.Load(); n != 2 {
			t.Errorf("%s: %d connections, want 2", name, n)
		}
		d.sweep(time.Now().Add(idleTime))
	}
}

// TestAnAnswerThatBreaksOffIsNoWholeOne: what came of it came, and its end is an error.
func TestAnAnswerThatBreaksOffIsNoWholeOne(t *testing.T) {
	for _, head := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		srv, _ := counted(t, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n3\r\none\r\n")
			_ = c.Close()
		})
		d := newDirect(none{t})
		got, err := get(t.Context(), d, srv.URL)
		if !strings.Contains(got, "one") || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v", head, got, err)
		}
		if len(d.idle[strings.TrimPrefix(srv.URL, "http://")]) > 0 {
			t.Errorf("%s: the connection is kept", head)
		}
	}
}

// TestReadsThatAreNotWantedEnd: before the answer, and in its midst.
func TestReadsThatAreNotWantedEnd(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		arrived, gone := make(chan struct{}), make(chan struct{})
		srv, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the end of the connection is noticed behind it
			if flushed {
				_, _ = io.WriteString(w, "beginning")
				w.(http.Flusher).Flush()
			}
			close(arrived)
			<-r.Context().Done()
			close(gone)
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-arrived; cancel(errLost) }()
		d := newDirect(none{t})
		if got, err := get(ctx, d, srv.URL); !errors.Is(err, errLost) {
			t.Errorf("%q, %v", got, err)
		}
		<-gone // so the connection was closed
		if len(d.idle[strings.TrimPrefix(srv.URL, "http://")]) > 0 {
			t.Error("the connection is kept")
		}
	}
}

// TestAnAnswerThatIsLeftEndsItsConnection leaves one that would never end.
func TestAnAnswerThatIsLeftEndsItsConnection(t *testing.T) {
	gone := make(chan struct{})
	srv, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for some := bytes.Repeat([]byte("x"), 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(some); err != nil {
				return
			}
		}
	})
	resp, err := newDirect(none{t}).RoundTrip(readOf(t.Context(), "GET", srv.URL, ""))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	<-gone
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v of a body that is closed", n, err)
	}
}

// TestConnectionsThatNobodyUsesAreClosed, also those to instances that are gone for ever.
func TestConnectionsThatNobodyUsesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirect(none{t})
		var ends []net.Conn
		for i := range 3 {
			near, far := net.Pipe()
			ends = append(ends, far)
			d.keep(d.over(near, fmt.Sprint("host", i/2)))
			time.Sleep(idleTime / 2)
		}
		d.sweep(time.Now())
		for i, far := range ends {
			_ = far.SetReadDeadline(time.Now().Add(time.Second))
			_, err := far.Read(make([]byte, 1))
			if closed := errors.Is(err, io.EOF); closed != (i < 2) {
				t.Errorf("connection %d: %v", i, err)
			}
			_ = far.Close()
		}
		if want := []string{"host1"}; len(d.idle) != 1 || !reflect.DeepEqual(want, []string{d.idle["host1"][0].host}) {
			t.Errorf("kept are %v", d.idle)
		}
		if d.take("host1", time.Now().Add(idleTime)) != nil {
			t.Error("an old connection is used")
		}
	})
}

// BenchmarkRead sends a small read and reads its answer, directly and by the library.
func BenchmarkRead(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	}))
	b.Cleanup(srv.Close)
	library := newTransport(false, UpstreamDeps{})
	for _, by := range []struct {
		name string
		http.RoundTripper
	}{{"library", library}, {"direct", newDirect(library)}} {
		b.Run("by="+by.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := by.RoundTrip(readOf(b.Context(), "POST", srv.URL, "query=up&time=1"))
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
