package ingest

import (
	"bytes"
	"errors"
	"net/http"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

const (
	// maxFirstBytes is the most that is allocated for a body before any of it came.
	maxFirstBytes = 512 << 10
	// usualRatio is what zstd and gzip make of remote write bodies, rounded up.
	usualRatio = 16
)

// first returns an empty buffer to read the body of r into. It has one byte more than announced, so
// that the end is found without growing; and it is only for a start of what is announced, because
// announcing costs a client nothing.
func (a *API) first(r *http.Request, most int) []byte {
	return a.buffers.take(int(min(r.ContentLength, maxFirstBytes))+1, most+1)
}

// readBody reads the body into buf, which it may replace by a larger one, and reserves memory
// before it grows. A sender that takes longer than the deadline is cut off. Errors: BodyTooLarge above
// most bytes, Unavailable, Invalid, Canceled.
func (a *API) readBody(w http.ResponseWriter, r *http.Request, buf []byte, share *share, most int) (_ []byte, err error) {
	if r.ContentLength > int64(most) {
		return buf, errs.New(errs.BodyTooLarge, "the body has %d bytes", r.ContentLength)
	}
	if err := share.grow(cap(buf)); err != nil {
		return buf, err
	}
	if a.cfg.ReadTimeout > 0 {
		conn := http.NewResponseController(w)
		if conn.SetReadDeadline(time.Now().Add(a.cfg.ReadTimeout)) == nil {
			// Cleared afterwards: the server watches the connection for the client going away, and would
			// take the deadline for that. Of a body that did not come the server reads on by itself, for
			// which the deadline stays.
			defer func() {
				if err == nil {
					_ = conn.SetReadDeadline(time.Time{})
				}
			}()
		}
	}
	body := http.MaxBytesReader(w, r.Body, int64(most))
	defer body.Close()
	for {
		if len(buf) == cap(buf) {
			bigger := a.buffers.take(2*cap(buf)+1, most+1)
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
		return errs.New(errs.BodyTooLarge, "the body has more than %d bytes", tooBig.Limit)
	}
	switch {
	case isEOF(err):
		return nil
	case isTimeout(err):
		return errs.New(errs.Invalid, "read the request body: not complete within %s", a.cfg.ReadTimeout)
	}
	return errs.New(errs.Canceled, "read the request body: %w", err) // it was cut: nobody waits for the answer
}

// unpack decompresses packed into a buffer that the caller gives back. Memory is reserved before
// it is used: snappy announces what it needs, for the others the reservation begins with the usual
// ratio and grows when that was not enough. The result has at most most bytes.
func (a *API) unpack(packed []byte, encoding string, share *share, most int) ([]byte, error) {
	size := len(packed)*usualRatio + 4096
	if encoding == "snappy" {
		size = 0 // not decodable: Decompress refuses it without allocating
		if n, err := s2.DecodedLen(packed); err == nil {
			size = n
		}
	}
	for reserved := 0; ; size *= usualRatio {
		size = min(size, most)
		if err := share.grow(size - reserved); err != nil {
			return nil, err
		}
		reserved = size
		room, spare := most, 0
		if encoding != "snappy" {
			// A stream is read until its end or a byte too many is seen, and a buffer without space
			// for that look would be doubled first.
			room, spare = size, bytes.MinRead+1
		}
		buf := a.buffers.take(size+spare, most+spare)
		plain, err := remotewrite.Decompress(buf, packed, encoding, room)
		if err == nil {
			return plain, nil
		}
		a.buffers.give(buf)
		if errs.KindOf(err) != errs.BodyTooLarge || room == most {
			return nil, err
		}
	}
}
