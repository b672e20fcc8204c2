package prom

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

const (
	// spillBytes is where the encoder hands its buffer to the connection. 64 KiB is a few TCP
	// segments: the client starts to read early, and the buffer of a slow client stays small.
	spillBytes = 64 << 10
	// gzipFromBytes is where compression begins to pay; smaller answers fit into one packet.
	gzipFromBytes = 1400
	// mostNotes bounds the warnings and infos of one answer, as in Prometheus.
	mostNotes = 10
)

// answer is one answer on its way out, JSON if it has no other type. Nothing is sent before the first spill, so a
// handler that fails early still chooses the status code.
type answer struct {
	w        http.ResponseWriter
	kind     string // of the content
	buf      []byte
	gz       *gzip.Writer
	wantGzip bool
	started  bool
	turn     *turns.Turn
	err      error // the first failed write; later writes are dropped
}

// writers holds what an answer needs for its time and gives back.
type writers struct {
	buffers sync.Pool
	gzips   sync.Pool
}

func newWriters() *writers {
	return &writers{
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, spillBytes+4096); return &b }},
		gzips: sync.Pool{New: func() any {
			gz, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
			if err != nil {
				panic("BUG: gzip level: " + err.Error())
			}
			return gz
		}},
	}
}

// send calls write with an answer and sends what it wrote with status 200. An error of the
// connection is not returned: there is nobody left to tell.
func (p *writers) send(w http.ResponseWriter, r *http.Request, write func(*answer)) {
	_ = p.stream(w, r, "application/json", func(a *answer) error { write(a); return nil }) // it never fails
}

// stream is send for an answer of any kind that may fail: before anything was sent, write's error is
// returned. Afterwards the connection is cut.
func (p *writers) stream(w http.ResponseWriter, r *http.Request, kind string, write func(*answer) error) error {
	buf := p.buffers.Get().(*[]byte)
	a := &answer{w: w, kind: kind, buf: (*buf)[:0], wantGzip: acceptsGzip(r)}
	if a.wantGzip {
		a.gz = p.gzips.Get().(*gzip.Writer)
		defer p.gzips.Put(a.gz)
	}
	defer func() {
		if cap(a.buf) <= 4*spillBytes { // one huge label must not make every buffer huge
			*buf = a.buf
		}
		p.buffers.Put(buf)
	}()
	if err := write(a); err != nil {
		if a.started {
			a.abandon()
			panic(http.ErrAbortHandler)
		}
		return err
	}
	a.finish()
	return nil
}

// spill sends the buffer when it is full.
func (a *answer) spill() {
	if len(a.buf) >= spillBytes {
		a.flush()
	}
}

func (a *answer) flush() {
	if !a.started {
		a.start(true)
	}
	if a.err == nil {
		if a.wantGzip {
			a.turn.Yield()
			_, a.err = a.gz.Write(a.buf)
		} else {
			a.turn.Rest() // the client may be slow
			_, a.err = a.w.Write(a.buf)
			a.turn.Resume()
		}
	}
	a.buf = a.buf[:0]
}

func (a *answer) start(more bool) {
	a.started = true
	h := a.w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	a.wantGzip = a.wantGzip && (more || len(a.buf) >= gzipFromBytes)
	switch {
	case a.wantGzip:
		h.Set("Content-Encoding", "gzip")
		a.gz.Reset(a.w)
	case !more:
		h.Set("Content-Length", strconv.Itoa(len(a.buf)))
	}
	a.w.WriteHeader(http.StatusOK)
}

func (a *answer) finish() {
	if !a.started {
		a.start(false)
	}
	a.flush()
	if a.wantGzip && a.err == nil {
		a.err = a.gz.Close()
	}
}

// abandon sends what was written so far of an answer that is not whole.
func (a *answer) abandon() {
	if a.wantGzip && a.err == nil {
		_ = a.gz.Flush() // the client is gone if this fails
	}
	if f, ok := a.w.(http.Flusher); ok && a.err == nil {
		f.Flush()
	}
}

// acceptsGzip says whether the client takes gzip: it is named, or *, and not with q=0.
func acceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
			if coding = strings.ToLower(strings.TrimSpace(coding)); coding != "gzip" && coding != "*" {
				continue
			}
			if q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); ok {
				if f, err := strconv.ParseFloat(q, 64); err == nil && f == 0 {
					return false
				}
			}
			return true
		}
	}
	return false
}

// success sends {"status":"success","data":<what data writes>} with the warnings of ws. query
// is the text that positions in ws refer to. A nil data leaves the field out.
func (a *API) success(w http.ResponseWriter, r *http.Request, ws annotations.Annotations, query string, data func(*answer)) {
	_, turn, end := a.b.Turns.Begin(a.b.Prepare(r))
	defer end()
	a.writers.send(w, r, func(out *answer) {
		out.turn = turn
		out.buf = append(out.buf, `{"status":"success"`...)
		if data != nil {
			out.buf = append(out.buf, `,"data":`...)
			data(out)
		}
		if len(ws) > 0 {
			out.notes(ws.AsStrings(query, 0, 0))
		}
		out.buf = append(out.buf, '}')
	})
}

// WriteError sends err as Prometheus's JSON with the status and type of its kind.
func WriteError(w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	b := append([]byte(nil), `{"status":"error","errorType":`...)
	b = appendString(b, kind.PrometheusType())
	b = appendString(append(b, `,"error":`...), err.Error())
	b = append(b, '}')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(kind.HTTPStatus())
	_, _ = w.Write(b) // the client is gone if this fails
}

// errTruncated is the warning of an answer cut by a limit, in Prometheus's words.
func errTruncated() error { return errors.New("results truncated due to limit") }
