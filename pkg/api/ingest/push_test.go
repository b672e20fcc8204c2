package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// sink is a distributor that remembers the last push.
type sink struct {
	written remotewrite.Written
	err     error

	id      tenant.ID
	version remotewrite.Version
	origin  remotewrite.Origin
	body    []byte
	calls   int
}

func (s *sink) Push(_ context.Context, id tenant.ID, req *remotewrite.Request) (remotewrite.Written, error) {
	s.id, s.version, s.origin, s.body = id, req.Version, req.Origin, bytes.Clone(req.Body)
	s.calls++
	return s.written, s.err
}

func newAPI(s Pusher) *API {
	return New(Config{MaxRecvBytes: 1 << 20, Protocols: Protocols{MaxOTLPBytes: 1 << 20}, ReadTimeout: time.Minute, InflightBytes: 16 << 20},
		Deps{Pusher: s, Registerer: prometheus.NewRegistry(), Random: func() float64 { return 0.5 }})
}

func do(a *API, r *http.Request) *httptest.ResponseRecorder {
	r = r.WithContext(tenant.Inject(r.Context(), "t1"))
	rec := httptest.NewRecorder()
	if err := a.Push(rec, r); err != nil {
		a.WriteError(rec, r, err)
	}
	return rec
}

func request(body []byte, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", "/api/v1/push", bytes.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

func TestTheProtocolIsChosenByContentType(t *testing.T) {
	body := s2.EncodeSnappy(nil, []byte("payload"))
	for contentType, want := range map[string]struct {
		version remotewrite.Version
		status  int
	}{
		"":     {1, 200},
		typeV1: {1, 200},
		"application/x-protobuf; proto=prometheus.WriteRequest": {1, 200},
		"text/plain": {1, 200},
		typeV2:       {2, 200},
		"application/x-protobuf; proto=io.prometheus.write.v2.Request": {2, 200},
		"application/x-protobuf;proto=io.prometheus.write.v3.Request":  {0, 415},
		"application/x-protobuf;;;=":                                   {0, 400},
	} {
		s := &sink{}
		rec := do(newAPI(s), request(body, "Content-Type", contentType, "Content-Encoding", "snappy"))
		if rec.Code != want.status || s.version != want.version {
			t.Errorf("%q: status %d, version %d, want %d, %d: %s", contentType, rec.Code, s.version, want.status, want.version, rec.Body)
		}
		if want.version != 0 && (string(s.body) != "payload" || s.id != "t1" || rec.Body.Len() != 0) {
			t.Errorf("%q: pushed %q for %q, answered %q", contentType, s.body, s.id, rec.Body)
		}
	}
}

func TestBodiesAreUnpackedByTheirEncoding(t *testing.T) {
	plain := bytes.Repeat([]byte("abcdefgh"), 100_000) // packs better than the first reservation expects
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for encoding, body := range map[string][]byte{"": s2.EncodeSnappy(nil, plain), "snappy": s2.EncodeSnappy(nil, plain), "zstd": enc.EncodeAll(plain, nil)} {
		for name, r := range map[string]*http.Request{"length known": request(body), "length unknown": httptest.NewRequest("POST", "/", io.MultiReader(bytes.NewReader(body)))} {
			s := &sink{}
			if encoding != "" {
				r.Header.Set("Content-Encoding", encoding)
			}
			a := newAPI(s)
			if rec := do(a, r); rec.Code != 200 || !bytes.Equal(s.body, plain) {
				t.Errorf("%q, %s: status %d %s, %d bytes", encoding, name, rec.Code, rec.Body, len(s.body))
			}
			if left := a.bodies.now.Load(); left != 0 {
				t.Errorf("%q, %s: %d bytes stay reserved", encoding, name, left)
			}
		}
	}
	if rec := do(newAPI(&sink{}), request(nil, "Content-Encoding", "br")); rec.Code != 415 {
		t.Errorf("br: status %d", rec.Code)
	}
}

func TestEachErrorHasItsStatus(t *testing.T) {
	body := s2.EncodeSnappy(nil, []byte("x"))
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{errs.New(errs.Invalid, "bad sample"), 400, false},
		{errs.New(errs.RateLimited, "too fast"), 429, true},
		{errs.New(errs.Accepted, "other replica"), 202, false},
		{errs.New(errs.Unavailable, "no quorum"), 503, true},
		{errs.New(errs.Unimplemented, "off"), 501, false},
		{errs.New(errs.Denied, "no"), 403, false},
		{context.DeadlineExceeded, 500, true},
		{errors.New("bug"), 500, true},
		{context.Canceled, 499, false},
		{errs.New(errs.BodyTooLarge, "symbols expand too far"), 400, false},
	} {
		rec := do(newAPI(&sink{err: c.err}), request(body, "Content-Type", typeV1))
		if rec.Code != c.status || (rec.Header().Get("Retry-After") != "") != c.retry {
			t.Errorf("%v: status %d, Retry-After %q", c.err, rec.Code, rec.Header().Get("Retry-After"))
		}
		if !strings.Contains(rec.Body.String(), c.err.Error()) || rec.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%v: answered %q as %q", c.err, rec.Body, rec.Header().Get("Content-Type"))
		}
	}
}

func TestVersion2SaysWhatWasWrittenEvenWithAnError(t *testing.T) {
	body := s2.EncodeSnappy(nil, []byte("x"))
	for _, err := range []error{nil, errs.New(errs.Invalid, "one sample was bad")} {
		rec := do(newAPI(&sink{written: remotewrite.Written{Samples: 3, Histograms: 2, Exemplars: 1}, err: err}), request(body, "Content-Type", typeV2))
		got := [3]string{}
		for i, what := range []string{"Samples", "Histograms", "Exemplars"} {
			got[i] = rec.Header().Get("X-Prometheus-Remote-Write-" + what + "-Written")
		}
		if got != [3]string{"3", "2", "1"} {
			t.Errorf("%v: headers %v", err, got)
		}
	}
}

func TestTooLargeBodiesAreRefusedWithoutMemory(t *testing.T) {
	zeros := make([]byte, 40<<20)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(zeros, nil)
	lying := request(s2.EncodeSnappy(nil, []byte("x")))
	lying.ContentLength = 1 << 20
	announced := request(nil)
	announced.ContentLength = 1 << 40
	for name, c := range map[string]struct {
		r    *http.Request
		want string
	}{
		"announced":     {announced, "(err-amphora-distributor-max-write-message-size)"},
		"endless":       {httptest.NewRequest("POST", "/", io.LimitReader(endless{}, 1<<30)), "(err-amphora-distributor-max-write-message-size)"},
		"snappy bomb":   {request(s2.EncodeSnappy(nil, zeros)), "(err-amphora-distributor-max-write-message-size)"},
		"snappy lie":    {request([]byte{0xff, 0xff, 0x3f, 0}), "decompress"},
		"zstd bomb":     {request(bomb, "Content-Encoding", "zstd"), "(err-amphora-distributor-max-write-message-size)"},
		"not snappy":    {request([]byte("hello, I am text")), "decompress"},
		"empty":         {request(nil), "decompress"},
		"length is lie": {lying, ""},
	} {
		s := &sink{}
		a := newAPI(s)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rec := do(a, c.r)
		runtime.ReadMemStats(&after)
		if name == "length is lie" {
			if rec.Code != 200 {
				t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
			}
		} else if rec.Code != 400 || !strings.Contains(rec.Body.String(), c.want) || s.calls != 0 {
			t.Errorf("%s: status %d %s", name, rec.Code, rec.Body)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 24<<20 {
			t.Errorf("%s: allocated %d bytes", name, grown)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}

// TestAStreamAtTheLimitIsNotCopiedForItsEnd: the buffer of the largest body has space for the look
// at whether more comes.
func TestAStreamAtTheLimitIsNotCopiedForItsEnd(t *testing.T) {
	const most = 64 << 20
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, most+1<<20), nil)
	a := New(Config{MaxRecvBytes: most, InflightBytes: 2 * most}, Deps{Pusher: &sink{}, Registerer: prometheus.NewRegistry(), Random: func() float64 { return 0.5 }})
	r := request(bomb, "Content-Encoding", "zstd")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rec := do(a, r)
	runtime.ReadMemStats(&after)
	if rec.Code != 400 {
		t.Errorf("status %d %s", rec.Code, rec.Body)
	}
	// The smaller buffers tried before are under half of the limit, and a decoder keeps a window.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > most*5/2 {
		t.Errorf("allocated %d bytes for a limit of %d", grown, most)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// blocked is a distributor that waits to be let go.
type blocked struct{ in, out chan struct{} }

func (b blocked) Push(context.Context, tenant.ID, *remotewrite.Request) (remotewrite.Written, error) {
	b.in <- struct{}{}
	<-b.out
	return remotewrite.Written{}, nil
}

func TestBodiesInMemoryAreBoundedForTheWholeProcess(t *testing.T) {
	b := blocked{make(chan struct{}), make(chan struct{})}
	a := New(Config{MaxRecvBytes: 8 << 20, InflightBytes: 6 << 20}, Deps{Pusher: b, Random: func() float64 { return 0 }})
	body := s2.EncodeSnappy(nil, make([]byte, 4<<20))
	first := make(chan int)
	go func() { first <- do(a, request(body)).Code }()
	<-b.in
	rec := do(a, request(body))
	if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "distributor-max-inflight-push-requests-bytes") {
		t.Errorf("second: %d %s", rec.Code, rec.Body)
	}
	close(b.out)
	if code := <-first; code != 200 {
		t.Errorf("first: %d", code)
	}
	go func() { first <- do(a, request(s2.EncodeSnappy(nil, make([]byte, 7<<20)))).Code }()
	<-b.in
	if code := <-first; code != 200 {
		t.Errorf("one alone that is larger than the bound: %d", code)
	}
}

func TestBodiesAreRefusedWhenTheProcessIsShortOfMemory(t *testing.T) {
	const budget = 1 << 50 // beside which the memory of the test itself does not count
	l := memory.New(memory.Limits{Process: budget, Go: budget}, memory.Deps{})
	a := New(Config{MaxRecvBytes: 1 << 20, Memory: l.Account(memory.Bodies)}, Deps{Pusher: &sink{}, Random: func() float64 { return 0 }})
	body := s2.EncodeSnappy(nil, make([]byte, 1000))
	l.Account(memory.Chunks).Take(budget * 96 / 100)
	if rec := do(a, request(body)); rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), "-memory.limit") {
		t.Errorf("short: %d %s", rec.Code, rec.Body)
	}
	l.Account(memory.Chunks).Release(budget * 96 / 100)
	if rec := do(a, request(body)); rec.Code != 200 || l.Account(memory.Bodies).Held() != 0 {
		t.Errorf("no longer short: %d %s; %d bytes held", rec.Code, rec.Body, l.Account(memory.Bodies).Held())
	}
}

func TestSlowSendersAreCutOff(t *testing.T) {
	a := New(Config{MaxRecvBytes: 1 << 20, ReadTimeout: 50 * time.Millisecond}, Deps{Pusher: &sink{}, Random: func() float64 { return 0 }})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(tenant.Inject(r.Context(), "t1"))
		if err := a.Push(w, r); err != nil {
			a.WriteError(w, r, err)
		}
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nonly this"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the sender was not cut off")
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400") || !strings.Contains(string(answer), "not complete within") {
		t.Errorf("answered %q", answer)
	}
}

func TestRetryAfterDoublesAndIsSpread(t *testing.T) {
	for _, c := range []struct {
		attempt   string
		low, high int
	}{
		{"", 3, 9}, {"x", 3, 9}, {"-3", 3, 9}, {"1", 3, 9}, {"2", 6, 18}, {"3", 12, 36}, {"4", 24, 72}, {"5", 48, 96}, {"1000000", 48, 96},
	} {
		retry := usualRetry()
		if low, high := retry.after(c.attempt, 0), retry.after(c.attempt, 0.999999); low != c.low || high != c.high {
			t.Errorf("attempt %q: %d to %d seconds, want %d to %d", c.attempt, low, high, c.low, c.high)
		}
	}
}

func BenchmarkPush(b *testing.B) {
	for name, size := range map[string]int{"bytes=10k": 10 << 10, "bytes=300k": 300 << 10} {
		b.Run(name, func(b *testing.B) {
			plain := make([]byte, size)
			for i := range plain {
				plain[i] = byte(i * i >> 7)
			}
			body := s2.EncodeSnappy(nil, plain)
			a := newAPI(discard{})
			ctx := tenant.Inject(context.Background(), "t1")
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				r := request(body, "Content-Type", typeV2).WithContext(ctx)
				if err := a.Push(httptest.NewRecorder(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{}

func (discard) Push(context.Context, tenant.ID, *remotewrite.Request) (remotewrite.Written, error) {
	return remotewrite.Written{}, nil
}
