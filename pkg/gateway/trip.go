package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// keptBytes bounds the body of a read that is kept so that it can be sent again. Forms are smaller.
	keptBytes = 64 << 10
	// silentProbes is how many questions in a row an instance leaves without an answer until what waits for its
	// answers is asked elsewhere.
	silentProbes = 2
)

// RoundTrip sends r to the first instance that can be reached. Nothing has been sent to those before.
func (p *pool) RoundTrip(r *http.Request) (*http.Response, error) { return p.send(r, false) }

// reader sends requests that change nothing: one that an instance took and did not answer, because it ended or
// hangs, is sent to another one, once.
type reader struct{ *pool }

// RoundTrip implements http.RoundTripper.
func (p reader) RoundTrip(r *http.Request) (*http.Response, error) { return p.send(r, true) }

// send sends r to instances until one answers. The body is for the proxy to close, when it is done with the
// answer: it may still be read then.
func (p *pool) send(r *http.Request, again bool) (*http.Response, error) {
	transport := p.transport
	if isGRPC(r) {
		transport, again = p.streams, false
	}
	m, err := newMessage(r, &again)
	if err != nil {
		return nil, err
	}
	all := p.instances(r.Context())
	if again && len(all) == 1 {
		all = append(all, all[0]) // there may be more than one behind an address
	}
	last := errs.New(errs.Unavailable, "no instance is known")
	for i, x := range all {
		try, known := m.to(x), x.fit(time.Now())
		forget := func() bool { return true }
		if m.again {
			try, forget = x.waiting.add(try)
		}
		resp, err := transport.RoundTrip(try)
		if !forget() && err == nil { // given up in the moment of the answer, which would break off
			_ = resp.Body.Close() // nobody reads it
			err = errLost
		}
		if err == nil && wantsTLS(resp) {
			_ = resp.Body.Close()
			x.unready.Store(true)
			x.deaf.Store(true)
			last = errs.New(errs.Unavailable, "%s speaks TLS: its address must begin with https", x.url.Host)
			if m.passed == nil {
				continue
			}
			return nil, last // what was read of the body is gone
		}
		spare := again && i+1 < len(all) && r.Context().Err() == nil
		switch {
		case err == nil && !(spare && (leaving(resp) || !known && resp.StatusCode == http.StatusServiceUnavailable)):
			m.answered()
			return resp, nil
		case err == nil:
			_ = resp.Body.Close() // it says no more than its status: the instance stops, or just begins
			again = false
		case unsent(err) && r.Context().Err() == nil:
			last = err
		case !spare:
			return nil, err
		default:
			last, again = err, false
		}
		x.restless.Store(time.Now().Add(restTime).UnixNano())
		if !unsent(err) {
			p.again.Inc()
		}
	}
	return nil, last
}

// unsent says whether err means that nothing was sent.
func unsent(err error) bool {
	dial, isNet := errors.AsType[*net.OpError](err)
	return isNet && dial.Op == "dial"
}

// leaving says whether an answer is the refusal of a process that stops.
func leaving(resp *http.Response) bool {
	return resp.StatusCode == http.StatusServiceUnavailable && resp.Close
}

func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// message is a request on its way to one instance or several.
type message struct {
	r      *http.Request
	again  bool
	kept   []byte        // the body, to be sent more than once
	held   *bytes.Reader // the body, of which each try sends a copy
	passed *passedBody   // the body, which is neither
}

// newMessage reads the body of what may have to be sent again, and says in again if it is too large for that.
func newMessage(r *http.Request, again *bool) (*message, error) {
	m := &message{r: r}
	if r.Body == nil || r.Body == http.NoBody {
		m.again = *again
		return m, nil
	}
	if held, ok := r.Body.(inMemory); ok && !*again {
		m.held = held.Reader
		return m, nil
	}
	if *again = *again && r.ContentLength > 0 && r.ContentLength <= keptBytes; !*again {
		m.passed = &passedBody{body: r.Body, length: r.ContentLength, gone: r.Context().Done()}
		return m, nil
	}
	m.again, m.kept = true, make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, m.kept); err != nil {
		return nil, errs.New(errs.Invalid, "the body of the request cannot be read: %w", err)
	}
	return m, nil
}

// inMemory is the body of a request that was read before it is passed on.
type inMemory struct{ *bytes.Reader }

// Close implements io.Closer.
func (inMemory) Close() error { return nil }

// to returns the request for an instance.
func (m *message) to(x *instance) *http.Request {
	try := m.r.Clone(m.r.Context())
	try.URL.Scheme, try.URL.Host = x.url.Scheme, x.url.Host
	switch {
	case m.passed != nil:
		try.Body = m.passed
	case m.held != nil:
		body := *m.held                // from its beginning: that of the try before may still be read
		try.Body = io.NopCloser(&body) // which the transport knows: it sends header and body at once
	case m.kept != nil:
		try.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.kept)), nil }
		try.Body, _ = try.GetBody() // it never fails
	}
	if m.again { // for the transport: it sends the request again by another connection if a kept one has ended. A header without values is not sent.
		try.Header["X-Idempotency-Key"] = nil
	}
	return try
}

// answered is called before anything of an answer is passed back.
func (m *message) answered() {
	if m.passed != nil {
		m.passed.answered.Store(true)
	}
}

// errLost is why a read is taken away from an instance that does not answer.
var errLost = errs.New(errs.Unavailable, "the instance does not answer any more")

// waiting is the reads that an instance has not begun to answer.
type waiting struct {
	mu    sync.Mutex // guards reads
	reads map[*http.Request]context.CancelCauseFunc
}

// add notes r, which from then on ends when it is given up. forget says whether that has not happened.
func (w *waiting) add(r *http.Request) (noted *http.Request, forget func() bool) {
	ctx, cancel := context.WithCancelCause(r.Context()) // which ends with the request at the latest
	r = r.WithContext(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reads == nil {
		w.reads = map[*http.Request]context.CancelCauseFunc{}
	}
	w.reads[r] = cancel
	return r, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, there := w.reads[r]
		delete(w.reads, r)
		return there
	}
}

// giveUp ends all that wait.
func (w *waiting) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cancel := range w.reads {
		cancel(errLost)
	}
	clear(w.reads)
}
