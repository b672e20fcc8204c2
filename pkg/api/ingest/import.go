package ingest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/imports"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// reader makes a remote write body of a request.
type reader func(body []byte, r *http.Request, o imports.Options, buf []byte, room remotewrite.Room) (imports.Result, error)

// ImportText answers a request with samples in the text that Prometheus scrapes.
func (a *API) ImportText(w http.ResponseWriter, r *http.Request) error {
	return a.imported(w, r, func(body []byte, r *http.Request, o imports.Options, buf []byte, room remotewrite.Room) (imports.Result, error) {
		return imports.Text(body, r.Header.Get("Content-Type"), o, buf, room)
	})
}

// ImportLines answers a request with JSON objects, one on each line.
func (a *API) ImportLines(w http.ResponseWriter, r *http.Request) error {
	return a.imported(w, r, func(body []byte, _ *http.Request, o imports.Options, buf []byte, room remotewrite.Room) (imports.Result, error) {
		return imports.Lines(body, o, buf, room)
	})
}

// ImportNative answers a request with chunks.
func (a *API) ImportNative(w http.ResponseWriter, r *http.Request) error {
	return a.imported(w, r, func(body []byte, _ *http.Request, o imports.Options, buf []byte, room remotewrite.Room) (imports.Result, error) {
		return imports.Native(body, o, buf, room)
	})
}

func (a *API) imported(w http.ResponseWriter, r *http.Request, read reader) error {
	start := time.Now()
	written, err := a.receiveImport(w, r, read)
	if err != nil {
		return err
	}
	holdBack(w, r, start, written.Delay)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// receiveImport stores what r carries. Its memory is given back when it returns.
func (a *API) receiveImport(w http.ResponseWriter, r *http.Request, read reader) (written remotewrite.Written, err error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return written, err
	}
	options, err := importOptions(r.URL.Query())
	if err != nil {
		return written, err
	}
	share := a.bodies.share()
	defer share.release()
	most := a.cfg.MaxRecvBytes
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
	// The parsers copy each text once.
	if err := share.grow(len(plain)); err != nil {
		return written, err
	}
	room := &room{a: a, share: share, most: translatedRatio * most}
	first, err := room.Grow(nil, len(plain))
	if err != nil {
		return written, err
	}
	res, err := read(plain, r, options, first, room)
	defer a.buffers.give(res.Body)
	if err != nil {
		return written, err
	}
	return a.pusher.Push(r.Context(), id, &remotewrite.Request{Version: remotewrite.V2, Body: res.Body, Origin: remotewrite.Import})
}

// maxExtraLabels bounds the labels that a request may add.
const maxExtraLabels = 32

// importOptions reads the parameters of an import. Errors: Invalid.
func importOptions(q url.Values) (imports.Options, error) {
	o := imports.Options{Time: time.Now()}
	if text := q.Get("timestamp"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return o, errs.New(errs.Invalid, "timestamp %.32q is not a whole number of milliseconds", text)
		}
		o.Time = time.UnixMilli(ms)
	}
	extra := q["extra_label"]
	if len(extra) > maxExtraLabels {
		return o, errs.New(errs.Invalid, "more than %d extra labels", maxExtraLabels)
	}
	b := labels.NewScratchBuilder(len(extra))
	var names []string
	for _, text := range extra {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || slices.Contains(names, name) {
			return o, errs.New(errs.Invalid, "extra label %.64q is not name=value, or is there twice", text)
		}
		names = append(names, name)
		b.Add(name, value)
	}
	b.Sort()
	o.Extra = b.Labels()
	return o, nil
}
