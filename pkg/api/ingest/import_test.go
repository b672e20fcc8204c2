package ingest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func TestImports(t *testing.T) {
	const line = `{"metric":{"__name__":"up"},"values":[1],"timestamps":[1]}`
	for name, c := range map[string]struct {
		lines  bool
		query  string
		body   string
		err    error
		status int
		want   string // in what is pushed, or else in the answer
	}{
		"text":        {false, "extra_label=job=x", "a 1\n", nil, 204, "job"},
		"lines":       {true, "", line, nil, 204, "up"},
		"bad text":    {false, "", "a{ 1\n", nil, 400, "nothing is stored"},
		"bad line":    {true, "", line + "\n{", nil, 400, "line 2"},
		"bad time":    {false, "timestamp=soon", "a 1\n", nil, 400, "milliseconds"},
		"bad label":   {false, "extra_label=job", "a 1\n", nil, 400, "name=value"},
		"label twice": {false, "extra_label=a=b&extra_label=a=c", "a 1\n", nil, 400, "twice"},
		"too large":   {false, "", strings.Repeat("a 1\n", 1<<19), nil, 413, ""},
		"bad frame":   {false, "", "\x05", nil, 400, "frame 1"},
		"too fast":    {false, "", "a 1\n", errs.New(errs.RateLimited, "too fast"), 429, "too fast"},
	} {
		s := &sink{err: c.err}
		a := newAPI(s)
		r := request([]byte(c.body))
		r.URL.RawQuery = c.query
		r = r.WithContext(tenant.Inject(r.Context(), "t1"))
		rec := httptest.NewRecorder()
		do := a.ImportText
		if c.lines {
			do = a.ImportLines
		}
		if strings.Contains(name, "frame") {
			do = a.ImportNative
		}
		if err := do(rec, r); err != nil {
			a.WriteError(rec, r, err)
		}
		if rec.Code != c.status {
			t.Errorf("%s: %d %q", name, rec.Code, rec.Body)
		}
		switch {
		case c.status == http.StatusNoContent:
			if s.origin != remotewrite.Import || s.version != remotewrite.V2 || !bytes.Contains(s.body, []byte(c.want)) || rec.Body.Len() > 0 {
				t.Errorf("%s: pushed %q, answered %q", name, s.body, rec.Body)
			}
		case !strings.Contains(rec.Body.String(), c.want):
			t.Errorf("%s: answered %q", name, rec.Body)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%s: %d bytes stay reserved", name, left)
		}
	}
}
