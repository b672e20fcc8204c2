package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// idleTime is how long a connection that nobody uses is kept, less than services keep it.
	idleTime = 90 * time.Second
	// mostHeaderBytes bounds the header of an answer.
	mostHeaderBytes = 1 << 20
)

// direct sends small reads by HTTP/1 from the goroutine that asks. The transport of the library has two goroutines
// for each connection, and to wake them, four times a request, costs more than a small answer does. What is no small
// read goes through next.
type direct struct {
	next http.RoundTripper
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu   sync.Mutex         // guards idle
	idle map[string][]*link // by address, the one used last at the end
}

// link is a connection for one request at a time.
type link struct {
	of     *direct
	host   string
	conn   net.Conn
	header io.LimitedReader // of conn
	r      *bufio.Reader    // of header
	w      *bufio.Writer
	used   bool // for a request before
	since  time.Time
}

func newDirect(next http.RoundTripper) *direct {
	return &direct{next: next, dial: (&net.Dialer{Timeout: dialTimeout}).DialContext, idle: map[string][]*link{}}
}

// takes says whether r can be sent here: it may be sent twice, as message.to marks it, and has no body that streams.
func (d *direct) takes(r *http.Request) bool {
	_, again := r.Header["X-Idempotency-Key"]
	return again && r.URL.Scheme == "http" && r.Header["Upgrade"] == nil && r.Header["Expect"] == nil && r.Trailer == nil &&
		(r.Body == nil || r.Body == http.NoBody || r.GetBody != nil)
}

// RoundTrip implements http.RoundTripper. Errors: those of dial if nothing was sent.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if !d.takes(r) {
		return d.next.RoundTrip(r)
	}
	host := r.URL.Host
	if r.URL.Port() == "" {
		host = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	c := d.take(host, time.Now())
	for {
		if c == nil {
			conn, err := d.dial(r.Context(), "tcp", host)
			if err != nil {
				if r.Body != nil {
					_ = r.Body.Close() // which a RoundTripper must
				}
				return nil, err
			}
			c = d.over(conn, host)
		}
		resp, answered, err := c.ask(r)
		if err == nil {
			return resp, nil
		}
		_ = c.conn.Close() // it is of no use any more
		if err := context.Cause(r.Context()); err != nil {
			return nil, err
		}
		if !c.used || answered {
			return nil, err
		}
		if r.GetBody != nil { // the other side closed a connection that had been kept
			again := *r
			if again.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
			r = &again
		}
		c = nil
	}
}

// over returns what sends requests over conn.
func (d *direct) over(conn net.Conn, host string) *link {
	c := &link{of: d, host: host, conn: conn, header: io.LimitedReader{R: conn, N: math.MaxInt64}, w: bufio.NewWriter(conn)}
	c.r = bufio.NewReader(&c.header)
	return c
}

// ask sends r and reads the header of its answer. answered says whether any of one came.
func (c *link) ask(r *http.Request) (resp *http.Response, answered bool, err error) {
	stop := context.AfterFunc(r.Context(), func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) }) // ends what reads and writes
	if err = r.Write(c.w); err == nil {
		err = c.w.Flush()
	}
	if err != nil {
		stop()
		return nil, false, err
	}
	if _, err = c.r.Peek(1); err != nil {
		stop()
		return nil, false, err
	}
	c.header.N = mostHeaderBytes
	for {
		if resp, err = http.ReadResponse(c.r, r); err != nil {
			stop()
			return nil, true, err
		}
		if resp.StatusCode/100 != 1 { // others announce the answer
			break
		}
	}
	c.header.N = math.MaxInt64
	body := &linkBody{body: resp.Body, c: c, stop: stop, ctx: r.Context(), last: resp.Close || r.Close}
	if resp.Body == http.NoBody || r.Method == http.MethodHead {
		body.end(true)
		return resp, true, nil
	}
	resp.Body = body
	return resp, true, nil
}

// linkBody is the body of an answer, at the end of which the connection is there for others.
type linkBody struct {
	body  io.Reader
	c     *link
	stop  func() bool
	ctx   context.Context //nolint:containedctx // It is that of the request of which this is the answer.
	last  bool            // the connection ends with it
	ended bool
}

// Read implements io.Reader.
func (b *linkBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	if err == nil {
		return n, nil
	}
	cause := context.Cause(b.ctx)
	b.end(errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF))
	if !errors.Is(err, io.EOF) && cause != nil {
		err = cause
	}
	return n, err
}

// Close implements io.Closer. What is not read to its end costs the connection.
func (b *linkBody) Close() error {
	b.end(false)
	return nil
}

// end is called when nothing more is read. whole says whether the answer came to its end.
func (b *linkBody) end(whole bool) {
	if b.ended {
		return
	}
	b.ended = true
	if !b.stop() || !whole || b.last || b.c.r.Buffered() > 0 {
		_ = b.c.conn.Close() // nothing that was sent is lost
		return
	}
	b.c.of.keep(b.c)
}

// keep keeps a connection for others.
func (d *direct) keep(c *link) {
	c.used, c.since = true, time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle[c.host]) >= idlePerHost {
		_ = c.conn.Close()
		return
	}
	d.idle[c.host] = append(d.idle[c.host], c)
}

// take returns a kept connection to host; nil: there is none.
func (d *direct) take(host string, now time.Time) *link {
	for {
		d.mu.Lock()
		kept := d.idle[host]
		if len(kept) == 0 {
			d.mu.Unlock()
			return nil
		}
		c := kept[len(kept)-1]
		kept[len(kept)-1] = nil
		d.idle[host] = kept[:len(kept)-1]
		d.mu.Unlock()
		if now.Sub(c.since) < idleTime && c.silent() {
			return c
		}
		_ = c.conn.Close()
	}
}

// silent says whether the other side has neither closed the connection nor sent anything that nobody asked for, which
// would be taken for the next answer.
func (c *link) silent() bool {
	s, ok := c.conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:]) //nolint:gosec // A descriptor is an int.
		silent = errors.Is(err, syscall.EAGAIN)
		return true // it does not wait
	})
	return err == nil && silent
}

// sweep closes what nobody has used for long, such as connections to instances that are gone.
func (d *direct) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for host, kept := range d.idle {
		old := 0
		for old < len(kept) && now.Sub(kept[old].since) >= idleTime {
			_ = kept[old].conn.Close()
			old++
		}
		if old == len(kept) {
			delete(d.idle, host)
		} else if old > 0 {
			d.idle[host] = slices.Clone(kept[old:])
		}
	}
}
