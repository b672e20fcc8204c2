// Package ingest owns the doors through which samples come in over HTTP: it negotiates the
// protocol, reads and decompresses a bounded body into pooled memory, hands it to the
// distributor and tells the client what became of it and when to come back.
package ingest

import (
	"bytes"
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// maxFirstBytes is the most that is allocated for a body before any of it came.
	maxFirstBytes = 512 << 10
	// usualRatio is what zstd and gzip make of remote write bodies, rounded up.
	usualRatio = 16
)

// Pusher stores what a request carries. It must not keep req.Body after it returns. Errors have
// the kinds of package errs; Written counts what was stored in spite of one.
type Pusher interface {
	Push(ctx context.Context, id tenant.ID, req *remotewrite.Request) (remotewrite.Written, error)
}

// API serves the write path.
type API struct {
	cfg     Config
	pusher  Pusher
	bodies  *inflight
	buffers *buffers
	metrics *metrics
	random  func() float64 // in [0, 1), spreads the retries of many clients
}

// New returns the write path in front of pusher. random gives numbers in [0, 1).
func New(cfg Config, pusher Pusher, reg prometheus.Registerer, random func() float64) *API {
	m := newMetrics(reg)
	if cfg.Retry == (RetryConfig{}) {
		cfg.Retry = usualRetry()
	}
	return &API{
		cfg:     cfg,
		pusher:  pusher,
		bodies:  &inflight{most: cfg.inflightBytes(), used: m.inflightBytes, process: cfg.Memory},
		buffers: newBuffers(),
		metrics: m,
		random:  random,
	}
}

// Push answers a Prometheus remote write request, version 1.0 or 2.0.
func (a *API) Push(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	version, err := negotiate(r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	written, err := a.push(w, r, version)
	if version == remotewrite.V2 {
		h := w.Header()
		h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(written.Samples))
		h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(written.Histograms))
		h.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(written.Exemplars))
	}
	if err == nil {
		holdBack(w, r, start, written.Delay)
	}
	return err // without one, the server answers 200 and no body
}

func (a *API) push(w http.ResponseWriter, r *http.Request, version remotewrite.Version) (none remotewrite.Written, err error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return none, err
	}
	encoding := r.Header.Get("Content-Encoding")
	if encoding == "" {
		encoding = "snappy" // the only encoding of version 1.0; early senders do not name it
	}
	share := a.bodies.share()
	defer share.release()
	// One byte more than announced, so that the end is found without growing; and only a start of
	// what is announced, because announcing costs a client nothing.
	packed := a.buffers.take(int(min(r.ContentLength, maxFirstBytes))+1, a.cfg.MaxRecvBytes+1)
	defer func() { a.buffers.give(packed) }()
	if packed, err = a.readBody(w, r, packed, share); err != nil {
		return none, err
	}
	plain, err := a.unpack(packed, encoding, share)
	if err != nil {
		return none, a.tooLarge(err)
	}
	defer a.buffers.give(plain)
	a.metrics.compressed.Observe(float64(len(packed)))
	a.metrics.uncompressed.Observe(float64(len(plain)))
	written, err := a.pusher.Push(r.Context(), id, &remotewrite.Request{Version: version, Body: plain})
	return written, a.tooLarge(err)
}

// unpack decompresses packed into a buffer that the caller gives back. Memory is reserved before
// it is used: snappy announces what it needs, for the others the reservation begins with the usual
// ratio and grows when that was not enough.
func (a *API) unpack(packed []byte, encoding string, share *share) ([]byte, error) {
	size := len(packed)*usualRatio + 4096
	if encoding == "snappy" {
		size = 0 // not decodable: Decompress refuses it without allocating
		if n, err := s2.DecodedLen(packed); err == nil {
			size = n
		}
	}
	for reserved := 0; ; size *= usualRatio {
		size = min(size, a.cfg.MaxRecvBytes)
		if err := share.grow(size - reserved); err != nil {
			return nil, err
		}
		reserved = size
		room, spare := a.cfg.MaxRecvBytes, 0
		if encoding != "snappy" {
			// A stream is read until its end or a byte too many is seen, and a buffer without space
			// for that look would be doubled first.
			room, spare = size, bytes.MinRead+1
		}
		buf := a.buffers.take(size+spare, a.cfg.MaxRecvBytes+spare)
		plain, err := remotewrite.Decompress(buf, packed, encoding, room)
		if err == nil {
			return plain, nil
		}
		a.buffers.give(buf)
		if errs.KindOf(err) != errs.BodyTooLarge || room == a.cfg.MaxRecvBytes {
			return nil, err
		}
	}
}

// tooLarge gives a body over the limit the status and the id that senders of remote write know:
// a 413 would be sent again by some of them.
func (a *API) tooLarge(err error) error {
	if err == nil || errs.KindOf(err) != errs.BodyTooLarge {
		return err
	}
	return errs.WithID(errs.Invalid, "distributor-max-write-message-size", "To adjust it, set -distributor.max-recv-msg-size.",
		"the incoming push request has been rejected because its message size is larger than the allowed limit of %d bytes: %w", a.cfg.MaxRecvBytes, err)
}

// negotiate returns the version that a Content-Type names. Everything without a proto parameter
// is version 1.0, because early senders name no type or a wrong one. Errors: Invalid.
func negotiate(contentType string) (remotewrite.Version, error) {
	if contentType == "" || contentType == "application/x-protobuf" {
		return remotewrite.V1, nil
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, errs.New(errs.Invalid, "content type %q: %w", contentType, err)
	}
	switch proto := params["proto"]; proto {
	case "", "prometheus.WriteRequest":
		return remotewrite.V1, nil
	case "io.prometheus.write.v2.Request":
		return remotewrite.V2, nil
	default:
		return 0, errs.New(errs.Invalid, "content type names the unknown message %q; prometheus.WriteRequest and io.prometheus.write.v2.Request are supported", proto)
	}
}

// readBody reads the body into buf, which it may replace by a larger one, and reserves memory
// before it grows. A sender that takes longer than the deadline is cut off.
func (a *API) readBody(w http.ResponseWriter, r *http.Request, buf []byte, share *share) ([]byte, error) {
	if r.ContentLength > int64(a.cfg.MaxRecvBytes) {
		return buf, a.tooLarge(errs.New(errs.BodyTooLarge, "the body has %d bytes", r.ContentLength))
	}
	if err := share.grow(cap(buf)); err != nil {
		return buf, err
	}
	if a.cfg.ReadTimeout > 0 {
		conn := http.NewResponseController(w)
		if conn.SetReadDeadline(time.Now().Add(a.cfg.ReadTimeout)) == nil {
			// Cleared afterwards: the server watches the connection for the client going away, and would
			// take the deadline for that.
			defer func() { _ = conn.SetReadDeadline(time.Time{}) }()
		}
	}
	body := http.MaxBytesReader(w, r.Body, int64(a.cfg.MaxRecvBytes))
	defer body.Close()
	for {
		if len(buf) == cap(buf) {
			bigger := a.buffers.take(2*cap(buf)+1, a.cfg.MaxRecvBytes+1)
			if err := share.grow(cap(bigger)); err != nil {
				a.buffers.give(bigger)
				return buf, err
			}
			bigger = append(bigger, buf...)
			a.buffers.give(buf)
			share.shrink(cap(buf))
			buf = bigger
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return buf, a.readError(err)
		}
	}
}

// readError classes what ended the body; the end itself is nil.
func (a *API) readError(err error) error {
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return a.tooLarge(errs.New(errs.BodyTooLarge, "the body has more than %d bytes", tooBig.Limit))
	}
	switch {
	case isEOF(err):
		return nil
	case isTimeout(err):
		return errs.New(errs.Invalid, "read the request body: not complete within %s", a.cfg.ReadTimeout)
	}
	return errs.New(errs.Canceled, "read the request body: %w", err) // it was cut: nobody waits for the answer
}
