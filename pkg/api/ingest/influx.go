package ingest

import (
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/influx"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Influx answers a write request of the Influx line protocol. Telegraf breaks on an answer with a body,
// so what went well is answered 204.
func (a *API) Influx(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	written, err := a.receiveInflux(w, r, start)
	if err != nil {
		return err
	}
	holdBack(w, r, start, written.Delay)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// receiveInflux stores what r carries. Its memory is given back when it returns.
func (a *API) receiveInflux(w http.ResponseWriter, r *http.Request, now time.Time) (written remotewrite.Written, err error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return written, err
	}
	precision, err := influx.ParsePrecision(r.URL.Query().Get("precision"))
	if err != nil {
		return written, err
	}
	share := a.bodies.share()
	defer share.release()
	most := a.cfg.Protocols.MaxInfluxBytes
	packed := a.first(r, most)
	defer func() { a.buffers.give(packed) }()
	if packed, err = a.readBody(w, r, packed, share, most); err != nil {
		return written, err
	}
	plain := packed
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		if plain, err = a.unpack(packed, encoding, share, most); err != nil {
			return written, err
		}
		defer a.buffers.give(plain)
	}
	a.metrics.compressed.Observe(float64(len(packed)))
	a.metrics.uncompressed.Observe(float64(len(plain)))
	room := &room{a: a, share: share, most: translatedRatio * most}
	first, err := room.Grow(nil, len(plain))
	if err != nil {
		return written, err
	}
	t := a.lines.Get().(*influx.Translator)
	res, err := t.Translate(plain, influx.Options{Precision: precision, Now: now}, first, room)
	a.lines.Put(t)
	defer a.buffers.give(res.Body)
	if err != nil {
		return written, err
	}
	written, err = a.pusher.Push(r.Context(), id, &remotewrite.Request{Version: remotewrite.V2, Body: res.Body, Origin: remotewrite.Influx})
	if err == nil && res.First != nil {
		err = errs.New(errs.Invalid, "%d of %d lines are malformed, the others are stored: %w", res.Refused, res.Lines, res.First)
	}
	return written, err
}
