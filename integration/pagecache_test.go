package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// memcached keeps items in memory: the commands of the protocol that a cache needs.
type memcached struct {
	net.Listener

	mu    sync.Mutex // guards what follows
	items map[string]string
	conns []net.Conn
	alter func(command, answer string) string // nil: answers are right; what is empty is not sent
}

func startMemcached(t *testing.T) *memcached {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	m := &memcached{Listener: l, items: map[string]string{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, c)
			m.mu.Unlock()
			wg.Go(func() { m.serve(c) })
		}
	})
	t.Cleanup(func() { m.stop(); wg.Wait() })
	return m
}

// stop ends the server and its connections.
func (m *memcached) stop() {
	_ = m.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
}

func (m *memcached) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items)
}

func (m *memcached) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		words := strings.Fields(line)
		if err != nil || len(words) == 0 {
			return
		}
		answer := "ERROR\r\n"
		switch {
		case words[0] == "get" || words[0] == "gets":
			answer = m.get(words[1:])
		case words[0] == "set" && len(words) >= 5:
			n, err := strconv.Atoi(words[4])
			if err != nil || n > 1<<20 {
				return
			}
			data := make([]byte, n+2)
			if _, err := io.ReadFull(r, data); err != nil {
				return
			}
			m.mu.Lock()
			m.items[words[1]] = string(data[:n])
			m.mu.Unlock()
			answer = "STORED\r\n"
		case words[0] == "version":
			answer = "VERSION 1.6.0\r\n"
		}
		m.mu.Lock()
		if m.alter != nil {
			answer = m.alter(words[0], answer)
		}
		m.mu.Unlock()
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (m *memcached) get(keys []string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out strings.Builder
	for _, k := range keys {
		if v, ok := m.items[k]; ok {
			fmt.Fprintf(&out, "VALUE %s 0 %d 1\r\n%s\r\n", k, len(v), v)
		}
	}
	return out.String() + "END\r\n"
}

// TestASharedCacheSparesRequestsAndIsNotNeeded reads blocks with an empty disk by way of memcached: first
// nothing is there, then everything, and at last the server is gone.
func TestASharedCacheSparesRequestsAndIsNotNeeded(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	dir := t.TempDir()
	m := startMemcached(t)
	flags := []string{"-ingester.out-of-order-time-window=48h"}
	for _, cache := range []string{"index", "chunks", "metadata"} {
		at := "-blocks-storage.bucket-store." + cache + "-cache."
		flags = append(flags, at+"backend=memcached", at+"memcached.addresses="+m.Addr().String(), at+"memcached.timeout=2s")
	}
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: flags})
	n := c.Nodes()[0]
	at := time.Now().Add(-5 * time.Hour).Truncate(time.Hour)
	var series []prompb.TimeSeries
	for i := range 50 {
		ts := prompb.TimeSeries{Labels: pairs("__name__", "cached", "i", strconv.Itoa(i))}
		for j := range 60 {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at.Add(time.Duration(j) * time.Minute).UnixMilli(), Value: float64(j)})
		}
		series = append(series, ts)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	// again reads everything with an empty disk, and returns the requests for pages and the hits.
	again := func() (requests, hits int) {
		t.Helper()
		must(t, n.Process.Stop())
		must(t, errors.Join(os.RemoveAll(n.DataDir), os.RemoveAll(filepath.Join(dir, "blocks-cache"))))
		must(t, n.Start())
		must(t, n.WaitReady(ctx))
		got, err := matrix(ctx, n.URL(""), "team-a", "count(count_over_time(cached[2h])) + sum(count_over_time(cached[2h]))", at.Add(90*time.Minute).UnixMilli())
		must(t, err)
		if len(got) != 1 || got[0].Value[1] != "3050" {
			t.Fatalf("the query answers %v, want 3050", got)
		}
		page := call(ctx, t, http.MethodGet, n.URL("/metrics"), nil).body
		return metric(t, page, `amphora_objstore_requests_total\{[^}]*cause="query"[^}]*operation="get_range"\}`), metric(t, page, `amphora_bucket_store_shared_cache_hits_total\{[^}]*\}`)
	}
	if cold, _ := again(); cold == 0 {
		t.Error("no requests for pages although nothing is in the cache")
	}
	// Items are written in the background, and those that the server does not take in time are not kept: what is
	// missing is read from the bucket, and kept, the next time.
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		if warm, hits := again(); warm != 0 || hits < 2 {
			return fmt.Errorf("%d requests for pages with the cache, which has %d items, and %d hits; want hits alone", warm, m.len(), hits)
		}
		return nil
	}))
	m.stop()
	if gone, _ := again(); gone == 0 {
		t.Error("no requests for pages although there is no cache")
	}
}

// metric sums the values of the series of a page that match.
func metric(t *testing.T, page, pattern string) (sum int) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` ([0-9.e+]+)$`).FindAllStringSubmatch(page, -1) {
		v, err := strconv.ParseFloat(m[len(m)-1], 64)
		must(t, err)
		sum += int(v)
	}
	return sum
}
