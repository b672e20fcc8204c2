package ingest

import (
	"context"
	"mime"
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/otlp"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// The content types of OTLP over HTTP.
const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

// OTLP answers an export request of the OpenTelemetry protocol over HTTP.
func (a *API) OTLP(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || contentType != typeProtobuf && contentType != typeJSON {
		return errs.New(errs.Unsupported, "content type %q is not supported; use %s or %s", r.Header.Get("Content-Type"), typeProtobuf, typeJSON)
	}
	stored, err := a.receive(w, r, contentType == typeJSON)
	if errs.KindOf(err) == errs.Accepted && err != nil {
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if err != nil {
		return err
	}
	holdBack(w, r, start, stored.delay)
	return stored.write(w, contentType)
}

// receive stores what r carries. Its memory is given back when it returns.
func (a *API) receive(w http.ResponseWriter, r *http.Request, json bool) (none outcome, err error) {
	share := a.bodies.share()
	defer share.release()
	packed := a.first(r, a.cfg.Protocols.MaxOTLPBytes)
	defer func() { a.buffers.give(packed) }()
	if packed, err = a.readBody(w, r, packed, share, a.cfg.Protocols.MaxOTLPBytes); err != nil {
		return none, a.otlpTooLarge(err)
	}
	return a.export(r.Context(), export{packed, r.Header.Get("Content-Encoding"), json}, share)
}

// export is an export request as received.
type export struct {
	packed   []byte
	encoding string
	json     bool
}

// export stores what e has. If a part was refused and the rest stored, that is no error but in the
// outcome.
func (a *API) export(ctx context.Context, e export, share *share) (none outcome, err error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return none, err
	}
	plain := e.packed
	if e.encoding != "" && e.encoding != "identity" {
		if plain, err = a.unpack(e.packed, e.encoding, share, a.cfg.Protocols.MaxOTLPBytes); err != nil {
			return none, a.otlpTooLarge(err)
		}
		defer a.buffers.give(plain)
	}
	a.metrics.compressed.Observe(float64(len(e.packed)))
	a.metrics.uncompressed.Observe(float64(len(plain)))
	if e.json {
		if err := share.grow(otlp.JSONBytes(len(plain))); err != nil {
			return none, err
		}
		if plain, err = otlp.FromJSON(plain); err != nil {
			return none, err
		}
	}
	out, _, err := a.store(ctx, id, plain, share, false)
	if err != nil {
		return none, err
	}
	return out, nil
}

// judge decides what the client of an export is told of the points that belong here.
func (a *API) judge(res otlp.Result, written remotewrite.Written, err error) (outcome, error) {
	if err != nil && errs.KindOf(err) != errs.Invalid {
		return outcome{}, a.otlpTooLarge(err)
	}
	points := res.Points - res.PartPoints - res.Unplaced
	elsewhere := points < res.Points
	out := outcome{refused: res.Refused, delay: written.Delay}
	if res.First != nil {
		out.message = res.First.Error()
	}
	if err != nil {
		stored := written.Samples + written.Histograms
		if stored == 0 && !elsewhere {
			return outcome{}, err
		}
		// The ingesters count samples, of which a histogram may be many.
		out.refused += max(min(res.Samples-stored, points-res.Refused), min(1, points))
		if out.message == "" {
			out.message = err.Error()
		}
	}
	if res.Points > 0 && out.refused == res.Points && res.First != nil {
		return outcome{}, res.First
	}
	return out, nil
}

// otlpTooLarge gives a body over the limit its id.
func (a *API) otlpTooLarge(err error) error {
	if err == nil || errs.KindOf(err) != errs.BodyTooLarge {
		return err
	}
	return errs.WithID(errs.BodyTooLarge, "distributor-max-otlp-request-size", "To adjust it, set -distributor.max-otlp-request-size.",
		"the incoming OTLP request has been rejected because its message size is larger than the allowed limit of %d bytes: %w", a.cfg.Protocols.MaxOTLPBytes, err)
}

// translatedRatio is how many times larger than the largest request a translation may be: the
// labels of a classic histogram are repeated for each bucket.
const translatedRatio = 4

// room gives a translation memory out of the share of its request.
type room struct {
	a     *API
	share *share
	most  int
}

// Grow implements remotewrite.Room.
func (m *room) Grow(buf []byte, n int) ([]byte, error) {
	if len(buf)+n > m.most {
		return buf, errs.New(errs.BodyTooLarge, "as remote write it has more than %d bytes", m.most)
	}
	bigger := m.a.buffers.take(max(2*cap(buf), len(buf)+n), m.most)
	if err := m.share.grow(cap(bigger)); err != nil {
		m.a.buffers.give(bigger)
		return buf, err
	}
	bigger = append(bigger, buf...)
	if cap(buf) > 0 {
		m.share.shrink(cap(buf))
		m.a.buffers.give(buf)
	}
	return bigger, nil
}

// Reserve implements remotewrite.Room.
func (m *room) Reserve(n int) error { return m.share.grow(n) }
