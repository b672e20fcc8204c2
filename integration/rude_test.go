package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestRudeClientsAreCutOff speaks HTTP as no client should, from many connections at once, while
// another client works.
func TestRudeClientsAreCutOff(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	c := oneProcess(ctx, t, harness.Options{Files: true, Flags: []string{"-server.http-read-timeout=5s", "-api.push-read-timeout=5s", "-distributor.ingestion-rate-limit=0"}})
	n := c.Nodes()[0]
	head := "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: team-a\r\n"
	cases := []struct {
		name, send string
		drip       string // sent each 100 ms from then on
		want       string // begin of the answer; empty: the connection ends, with or without one
	}{
		{name: "header that never ends", send: "GET /ready HTTP/1.1\r\n", drip: "X-A: b\r\n"},
		{name: "line that never ends", send: "GET /", drip: "a"},
		{name: "nothing"},
		{name: "body that drips", send: head + "Content-Length: 1000000\r\n\r\n", drip: "a"},
		{name: "body that stops", send: head + "Content-Length: 1000\r\n\r\nabc"},
		{name: "chunk that never comes", send: head + "Transfer-Encoding: chunked\r\n\r\nffff\r\nabc"},
		{name: "header of 2 MiB", send: "GET /ready HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", want: "HTTP/1.1 431 "},
		{name: "body that is too slow, and what looks like requests in it", send: head + "Transfer-Encoding: chunked\r\n\r\nfffffff0\r\n", drip: strings.Repeat("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", 1_000)},
		{name: "body declared too large", send: head + "Content-Length: 99999999999\r\n\r\nabc", want: "HTTP/1.1 400 "},
		{name: "two lengths", send: head + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", want: "HTTP/1.1 400 "},
		{name: "negative length", send: head + "Content-Length: -1\r\n\r\n", want: "HTTP/1.1 400 "},
		{name: "length and chunks", send: head + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "HTTP/1.1 4"},
		{name: "no HTTP", send: "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", want: "HTTP/1.1 400 "},
		{name: "no host", send: "GET /ready HTTP/1.1\r\n\r\n", want: "HTTP/1.1 400 "},
	}
	var wg sync.WaitGroup
	for _, tc := range cases {
		for range 10 {
			wg.Go(func() {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.Machine.Seen(n.HTTP))
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				begin := time.Now()
				ended := make(chan string, 1)
				go func() {
					_ = conn.SetReadDeadline(begin.Add(time.Minute))
					line, err := bufio.NewReader(conn).ReadString('\n')
					if err == nil && tc.want == "" {
						_, _ = io.Copy(io.Discard, conn) // until it is closed
					}
					ended <- line
				}()
				_, _ = io.WriteString(conn, tc.send)
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						_, _ = io.WriteString(conn, tc.drip)
						continue
					case line := <-ended:
						if took := time.Since(begin); took > 30*time.Second {
							t.Errorf("%s: cut off only after %s", tc.name, took)
						}
						if tc.want != "" && !strings.HasPrefix(line, tc.want) {
							t.Errorf("%s: answered %q, want %q", tc.name, line, tc.want)
						}
					}
					return
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	slowest, pushes := time.Duration(0), 0
	for running := true; running; pushes++ {
		begin := time.Now()
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(begin, float64(pushes), "__name__", "m")))
		slowest = max(slowest, time.Since(begin))
		select {
		case <-done:
			running = false
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Logf("%d pushes beside, the slowest took %s", pushes, slowest)
	if slowest > 10*time.Second {
		t.Errorf("a push took %s beside rude clients", slowest)
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query?query="+fmt.Sprintf("count_over_time(m[%ds])", 600)), nil, "X-Scope-OrgID", "team-a"); !strings.Contains(r.body, fmt.Sprintf("%q", fmt.Sprint(pushes))) {
		t.Errorf("want %d samples: %s", pushes, r)
	}
}
