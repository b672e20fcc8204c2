package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestNothingIsLeftBehind cancels queries, hangs up, breaks off pushes and changes the runtime
// configuration many times, and wants as many goroutines and open files as before.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	dir := t.TempDir()
	runtime := filepath.Join(dir, "runtime.yaml")
	must(t, os.WriteFile(runtime, nil, 0o600))
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-distributor.ingestion-rate-limit=0", "-runtime-config.file=" + runtime, "-runtime-config.reload-period=1s",
	}})
	n := c.Nodes()[0]
	now := time.Now()
	for i := range 200 {
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(now, float64(i), "__name__", "m", "i", fmt.Sprint(i))))
	}
	upset := func(rounds int) {
		query := n.URL("/prometheus/api/v1/query_range?") + url.Values{"query": {"sum by (i) (rate(m[5m] offset 1ms))"},
			"start": {fmt.Sprint(now.Unix() - 3600)}, "end": {fmt.Sprint(now.Unix())}, "step": {"1"}}.Encode()
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range rounds {
					within, cancel := context.WithTimeout(ctx, time.Duration(1+(i*7+w)%40)*time.Millisecond)
					_, _ = try(within, http.MethodGet, query, nil, "X-Scope-OrgID", "team-a") // most do not end
					cancel()
				}
			})
			wg.Go(func() {
				for i := range rounds {
					conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.Machine.Seen(n.HTTP))
					if err != nil {
						t.Error(err)
						return
					}
					if i%2 == 0 { // a push that breaks off
						_, _ = fmt.Fprintf(conn, "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: team-a\r\nContent-Length: 1000\r\n\r\nabc")
					}
					_ = conn.Close()
				}
			})
		}
		for i := range rounds / 5 {
			must(t, os.WriteFile(runtime, fmt.Appendf(nil, "overrides:\n  team-a:\n    max_label_names_per_series: %d\n", 20+i%10), 0o600))
			pause(ctx, t, 100*time.Millisecond)
		}
		wg.Wait()
	}
	usage := func() (goroutines, files float64) {
		http.DefaultClient.CloseIdleConnections()
		text := scrape(ctx, t, n.URL("/metrics"), "go_goroutines")
		return text, scrape(ctx, t, n.URL("/metrics"), "process_open_fds")
	}
	upset(20) // what is made once is made
	var before, files float64
	for range 20 { // the least of a while: what runs now and then does not
		g, f := usage()
		if before == 0 || g < before {
			before, files = g, f
		}
		pause(ctx, t, 100*time.Millisecond)
	}
	upset(150)
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		g, f := usage()
		if g > before*1.05+5 || f > files*1.05+5 {
			return fmt.Errorf("%g goroutines and %g files, there were %g and %g", g, f, before, files)
		}
		return nil
	}))
}
