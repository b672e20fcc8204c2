package work

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

const (
	// maxBodyBytes bounds a request of the read API.
	maxBodyBytes = 10 << 20
	// partBytes is the aim for one part of an answer: large enough that its overhead does not show,
	// small enough that an answer is read while it is written.
	partBytes = 256 << 10
)

// requestToWire leaves the body of r as it was: the message may have to be made again for somebody else.
func requestToWire(r *http.Request) (*querypb.HTTPRequest, error) {
	out := &querypb.HTTPRequest{Method: r.Method, Url: r.URL.RequestURI(), Header: headerToWire(r.Header)}
	if r.Body == nil {
		return out, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the request body: %w", err)
	}
	if len(body) > maxBodyBytes {
		return nil, errs.New(errs.BodyTooLarge, "request is larger than %d bytes", maxBodyBytes)
	}
	out.Body = body
	r.Body = io.NopCloser(bytes.NewReader(body))
	return out, nil
}

func requestFromWire(ctx context.Context, p *querypb.HTTPRequest) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, p.Method, p.Url, bytes.NewReader(p.Body))
	if err != nil {
		return nil, errs.New(errs.Invalid, "request of a frontend: %w", err)
	}
	r.RequestURI = p.Url
	return r, headerFromWire(r.Header, p.Header)
}

func headerToWire(h http.Header) []string {
	var out []string
	for name, values := range h {
		for _, v := range values {
			out = append(out, name, v)
		}
	}
	return out
}

func headerFromWire(h http.Header, list []string) error {
	if len(list)%2 != 0 {
		return errs.New(errs.Invalid, "a header without a value arrived")
	}
	for i := 0; i < len(list); i += 2 {
		h.Add(list[i], list[i+1])
	}
	return nil
}

// writePart writes a part of an HTTP answer. Errors: Invalid, Canceled if the client has gone.
func writePart(w http.ResponseWriter, p *querypb.Part) error {
	if p.Status != 0 {
		if p.Status < 200 || p.Status > 599 {
			return errs.New(errs.Internal, "an answer has the status %d", p.Status)
		}
		if err := headerFromWire(w.Header(), p.Header); err != nil {
			return err
		}
		w.WriteHeader(int(p.Status))
	}
	if len(p.Body) == 0 {
		return nil
	}
	if _, err := w.Write(p.Body); err != nil {
		return errs.New(errs.Canceled, "send the answer: %w", err)
	}
	return nil
}

// partWriter is a http.ResponseWriter that sends parts.
type partWriter struct {
	to     sink
	header http.Header
	status int
	sent   bool
	buf    []byte
	err    error
}

// Header implements http.ResponseWriter.
func (w *partWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *partWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *partWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.buf = append(w.buf, b...)
	if len(w.buf) >= partBytes {
		w.flush(w.to.send)
	}
	return len(b), w.err
}

// Flush is found by handlers that look for http.Flusher.
func (w *partWriter) Flush() {
	if w.WriteHeader(http.StatusOK); !w.sent || len(w.buf) > 0 {
		w.flush(w.to.send)
	}
}

func (w *partWriter) flush(send func(*querypb.Part) error) {
	if w.err != nil {
		return
	}
	p := &querypb.Part{Body: w.buf}
	if !w.sent {
		w.sent = true
		p.Status, p.Header = uint32(w.status), headerToWire(w.header)
	}
	w.err = send(p)
	w.buf = nil // it belongs to the message
}

// end sends the rest.
func (w *partWriter) end() error {
	w.WriteHeader(http.StatusOK)
	if !w.sent || len(w.buf) > 0 {
		w.flush(w.to.last)
	}
	return w.err
}
