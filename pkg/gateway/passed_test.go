package gateway

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// pausing is a body that waits before it is read on after so many bytes.
type pausing struct {
	io.ReadCloser
	after int
	goOn  chan struct{}
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.after == 0 {
		<-p.goOn
		return p.ReadCloser.Read(b)
	}
	n, err := p.ReadCloser.Read(b[:min(len(b), p.after)])
	p.after -= n
	return n, err
}

// TestAnswersOutliveTheBodiesTheyAnswer has what sends a request on look at its body once more after the answer
// has begun, as it may when the machine is busy. The server has taken the body away by then.
func TestAnswersOutliveTheBodiesTheyAnswer(t *testing.T) {
	const size = 1000
	for name, c := range map[string]struct {
		length int // as told; below 0: not
		after  int // bytes that are read in time
		all    bool
	}{
		"all of it was sent":                   {size, size, true},
		"all of it was sent, in chunks":        {-1, size, true},
		"the answer came before its end":       {size, size / 2, false},
		"the same in chunks":                   {-1, size / 2, false},
		"the answer came before its beginning": {size, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resume := make(chan struct{})
			goOn := sync.OnceFunc(func() { close(resume) })
			half := bytes.Repeat([]byte("x"), 100_000)
			behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.all {
					_, _ = io.ReadFull(r.Body, make([]byte, size))
				}
				w.Header().Set("Connection", "close") // so that it answers before the body ends
				_, _ = w.Write(half)
				_ = http.NewResponseController(w).Flush()
				<-resume
				_, _ = w.Write(half)
			}))
			t.Cleanup(behind.Close)
			u, err := NewUpstreams(UpstreamConfig{Addresses: []string{"querier=" + behind.URL}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan struct{}) // the proxy has looked at the body again
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				out := *r
				out.Body = &pausing{r.Body, c.after, resume}
				defer close(read)
				u.Of("querier", false).ServeHTTP(w, &out)
			}))
			t.Cleanup(front.Close)
			t.Cleanup(goOn) // before the servers wait
			body := io.Reader(strings.NewReader(strings.Repeat("b", size)))
			if c.length < 0 {
				body = io.MultiReader(body)
			}
			resp, err := http.Post(front.URL, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			got := make([]byte, len(half))
			if _, err := io.ReadFull(resp.Body, got); err != nil {
				t.Fatal(err)
			}
			goOn()
			rest, err := io.ReadAll(resp.Body)
			if err != nil || len(rest) != len(half) {
				t.Errorf("the second half: %d bytes, %v", len(rest), err)
			}
			<-read
		})
	}
}
