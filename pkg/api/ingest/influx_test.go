package ingest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func doInflux(a *API, query string, r *http.Request) *httptest.ResponseRecorder {
	r = r.WithContext(tenant.Inject(r.Context(), "t1"))
	r.URL.RawQuery = query
	rec := httptest.NewRecorder()
	if err := a.Influx(rec, r); err != nil {
		a.WriteError(rec, r, err)
	}
	return rec
}

func TestInfluxLinesArePushed(t *testing.T) {
	const lines = "cpu,host=a idle=1 5\n"
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write([]byte(lines)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*http.Request{
		"plain": request([]byte(lines), "Content-Type", "text/plain; charset=utf-8"), "identity": request([]byte(lines), "Content-Encoding", "identity"),
		"gzip": request(zipped.Bytes(), "Content-Encoding", "gzip"), "empty": request(nil),
	} {
		s := &sink{}
		a := newAPI(s)
		rec := doInflux(a, "db=x&precision=s", r)
		if rec.Code != 204 || rec.Body.Len() != 0 || s.origin != remotewrite.Influx || s.version != remotewrite.V2 || s.id != "t1" {
			t.Errorf("%s: %d %q, pushed for %q", name, rec.Code, rec.Body, s.id)
		}
		if name != "empty" && !bytes.Contains(s.body, []byte("cpu_idle")) {
			t.Errorf("%s: pushed %q", name, s.body)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}

func TestInfluxErrors(t *testing.T) {
	large := []byte(strings.Repeat("a v=1\n", 1<<18))
	for name, c := range map[string]struct {
		query  string
		body   []byte
		err    error
		status int
		want   string
		calls  int
	}{
		"a bad line":     {"", []byte("m v=1\nm v=\n"), nil, 400, "1 of 2 lines are malformed, the others are stored: line 2: ", 1},
		"precision":      {"precision=week", []byte("m v=1"), nil, 400, "precision", 0},
		"too large":      {"", large, nil, 413, "", 0},
		"too fast":       {"", []byte("m v=1"), errs.New(errs.RateLimited, "too fast"), 429, "too fast", 1},
		"no quorum":      {"", []byte("m v=1"), errs.New(errs.Unavailable, "no quorum"), 503, "no quorum", 1},
		"refused sample": {"", []byte("m v=1"), errs.New(errs.Invalid, "too old"), 400, "too old", 1},
	} {
		s := &sink{err: c.err}
		a := newAPI(s)
		a.cfg.Protocols.MaxInfluxBytes = 1 << 20
		rec := doInflux(a, c.query, request(c.body))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) || s.calls != c.calls {
			t.Errorf("%s: %d %q after %d pushes", name, rec.Code, rec.Body, s.calls)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}
