package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Target is where requests go.
type Target struct {
	URL         string
	Header      http.Header   // added to every request, for example Authorization
	Connections int           // default 1; a series keeps its connection, so its samples stay in order
	Pace        time.Duration // how long a scrape takes at least; 0: as fast as the server answers
	Retries     int           // of a request that is answered 429, 5xx or not at all
	TLS         *tls.Config   // for https; nil: the system's trust
}

// Report is what became of a batch.
type Report struct {
	Requests, Retries int
	Acknowledged      int // samples
	Refused           int // samples of requests that were not acknowledged in the end
	Refusal           string
	Bytes             int64
	Wall, CPU         time.Duration // CPU is this process's own
	latencies         []time.Duration
}

// Add adds other to r.
func (r *Report) Add(other Report) {
	r.Requests += other.Requests
	r.Retries += other.Retries
	r.Acknowledged += other.Acknowledged
	r.Refused += other.Refused
	if r.Refusal == "" {
		r.Refusal = other.Refusal
	}
	r.Bytes += other.Bytes
	r.Wall += other.Wall
	r.CPU += other.CPU
	r.latencies = append(r.latencies, other.latencies...)
}

// Latency returns the time that the part q of the requests took at most.
func (r *Report) Latency(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	all := slices.Sorted(slices.Values(r.latencies))
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

const (
	requestTimeout = time.Minute
	firstBackoff   = 50 * time.Millisecond
	largestBackoff = 5 * time.Second
	mostAnswer     = 64 << 10
	// writeBuffer lets a fresh connection take a request as a whole, so that the sender need not wake
	// up to write the rest of it.
	writeBuffer = 256 << 10
)

// Send sends b, scrape by scrape, and returns when every request was answered. The error says that
// ctx ended or that the target's URL is no use; refusals are in the report.
func (t Target) Send(ctx context.Context, b *Batch, version2 bool) (Report, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return Report{}, fmt.Errorf("address to push to: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return Report{}, fmt.Errorf("address to push to: %q is no http or https URL", t.URL)
	}
	n := max(1, t.Connections)
	parts := make([]Report, n)
	began, cpu := time.Now(), CPU()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := &conn{target: &t, url: u, head: t.headers(u, version2), report: &parts[i]}
			defer c.close()
			c.sendPart(ctx, b, i, n, began)
		})
	}
	wg.Wait()
	var sum Report
	for _, p := range parts {
		sum.Add(p)
	}
	sum.Wall, sum.CPU = time.Since(began), CPU()-cpu
	return sum, ctx.Err()
}

// headers returns the constant start of every request.
func (t Target) headers(u *url.URL, version2 bool) []byte {
	h := http.Header{}
	for k, v := range t.Header {
		h[http.CanonicalHeaderKey(k)] = v
	}
	h.Set("Content-Encoding", "snappy")
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if version2 {
		h.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		h.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	}
	h.Set("User-Agent", "amphora-loadgen")
	out := append([]byte("POST "), u.RequestURI()...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, u.Host...)
	out = append(out, "\r\n"...)
	for k, vs := range h {
		for _, v := range vs {
			out = append(out, k+": "+v+"\r\n"...)
		}
	}
	return out
}

// conn is one connection; it writes requests by hand, which costs a third of what an http.Client does.
type conn struct {
	target *Target
	url    *url.URL
	head   []byte
	report *Report

	net.Conn
	in  *bufio.Reader
	buf []byte
}

// sendPart sends every n-th request from i on.
func (c *conn) sendPart(ctx context.Context, b *Batch, i, n int, began time.Time) {
	for s, turn := range b.requests {
		for at := i; at < len(turn); at += n {
			due := time.Duration(s)*c.target.Pace + c.target.Pace*time.Duration(at)/time.Duration(len(turn))
			if wait := time.Until(began.Add(due)); c.target.Pace > 0 && wait > 0 && !pause(ctx, wait) {
				return
			}
			if ctx.Err() != nil {
				return
			}
			c.sendOne(ctx, turn[at])
		}
	}
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *conn) sendOne(ctx context.Context, r request) {
	began := time.Now()
	backoff := firstBackoff
	for try := 0; ; try++ {
		status, text, err := c.attempt(ctx, r)
		c.report.Requests++
		c.report.Bytes += int64(len(r.body))
		again := err != nil || status == http.StatusTooManyRequests || status >= 500
		switch {
		case err == nil && status/100 == 2:
			c.report.Acknowledged += r.samples
			c.report.latencies = append(c.report.latencies, time.Since(began))
			return
		case !again || try >= c.target.Retries || !pause(ctx, backoff):
			c.report.Refused += r.samples
			if c.report.Refusal == "" {
				c.report.Refusal = fmt.Sprintf("status %d: %s", status, text)
				if err != nil {
					c.report.Refusal = err.Error()
				}
			}
			return
		}
		c.report.Retries++
		backoff = min(2*backoff, largestBackoff)
	}
}

// attempt sends r once and reads the answer.
func (c *conn) attempt(ctx context.Context, r request) (status int, text string, err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := c.open(ctx); err != nil {
		return 0, "", err
	}
	if err := c.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, "", fmt.Errorf("set the deadline: %w", err)
	}
	c.buf = append(c.buf[:0], c.head...)
	c.buf = append(c.buf, "X-Scope-OrgID: "+r.tenant+"\r\nContent-Length: "...)
	c.buf = strconv.AppendInt(c.buf, int64(len(r.body)), 10)
	c.buf = append(c.buf, "\r\n\r\n"...)
	out := net.Buffers{c.buf, r.body}
	if _, err := out.WriteTo(c.Conn); err != nil {
		return 0, "", fmt.Errorf("send: %w", err)
	}
	if _, err := c.in.Peek(1); err != nil {
		return 0, "", fmt.Errorf("read the answer: %w", err)
	}
	if c.plain() {
		return http.StatusOK, "", nil
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, "", fmt.Errorf("read the answer: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return 0, "", fmt.Errorf("read the answer: %w", err)
	}
	if resp.Close {
		c.close()
	}
	return resp.StatusCode, string(answer), nil
}

// plain takes an answer that arrived as a whole, is a success and says nothing, which nearly all are:
// to parse its headers costs a tenth of what a request does. Otherwise it takes nothing.
func (c *conn) plain() bool {
	text, _ := c.in.Peek(c.in.Buffered()) // it is there
	if bytes.Index(text, []byte("\r\n\r\n")) != len(text)-4 || bytes.Contains(text, []byte("\r\nConnection:")) {
		return false
	}
	if !bytes.HasPrefix(text, []byte("HTTP/1.1 204 ")) &&
		(!bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) || !bytes.Contains(text, []byte("\r\nContent-Length: 0\r\n"))) {
		return false
	}
	_, _ = c.in.Discard(len(text)) // as above
	return true
}

func (c *conn) open(ctx context.Context) error {
	if c.Conn != nil {
		return nil
	}
	host, port := c.url.Hostname(), c.url.Port()
	if port == "" {
		port = c.url.Scheme
	}
	var err error
	dialer := &net.Dialer{Timeout: requestTimeout}
	if c.url.Scheme == "https" {
		c.Conn, err = (&tls.Dialer{NetDialer: dialer, Config: c.target.TLS}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	} else {
		c.Conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	}
	if err != nil {
		c.Conn = nil
		return fmt.Errorf("connect: %w", err)
	}
	if t, ok := c.Conn.(*net.TCPConn); ok {
		if err := t.SetWriteBuffer(writeBuffer); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	c.in = bufio.NewReader(c.Conn)
	return nil
}

func (c *conn) close() {
	if c.Conn != nil {
		_ = c.Conn.Close() // nobody can act on it
		c.Conn = nil
	}
}
