package harness

import (
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Faults says what a FaultProxy does to requests; shares are between 0 and 1.
type Faults struct {
	Down  bool          // connections end at once
	Fail  float64       // share answered with 503
	Lose  float64       // share that is done while the answer is lost
	Cut   float64       // share whose body, or whose answer's, ends half way
	Delay time.Duration // before each
	Hold  string        // requests with this in their path wait until other faults are set, but for
	Pass  int           // so many of them
}

// FaultProxy stands before a server that speaks HTTP, and plays the network and the bad days of it.
type FaultProxy struct {
	Endpoint string // host:port

	server *http.Server

	mu       sync.Mutex // guards what follows
	faults   Faults
	requests int
	done     int           // to which something was done
	passed   int           // of those that Hold is about, since the faults were set
	held     int           // wait
	changed  chan struct{} // closed when other faults are set
}

// errLost ends the connection of an answer that is to be lost.
var errLost = errors.New("answer lost on purpose")

// NewFaultProxy listens on a free port before the server at endpoint. Close it.
func NewFaultProxy(endpoint string) (*FaultProxy, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return nil, err
	}
	p := &FaultProxy{Endpoint: l.Addr().String(), changed: make(chan struct{})}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: endpoint})
			r.Out.Host = r.In.Host // it is part of what is signed
		},
		ModifyResponse: func(r *http.Response) error {
			switch fate(r.Request.Header.Get(fateHeader)) {
			case lose:
				return errLost
			case cut:
				r.Body = &half{ReadCloser: r.Body, left: r.ContentLength / 2}
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	p.server = &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.let(r) {
			return
		}
		f, what := p.next()
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
		switch {
		case f.Down:
			panic(http.ErrAbortHandler)
		case what == fail:
			http.Error(w, "on purpose", http.StatusServiceUnavailable)
			return
		case what == cut && r.ContentLength > 1:
			r.Body = &half{ReadCloser: r.Body, left: r.ContentLength / 2}
			what = none
		}
		r.Header.Set(fateHeader, string(what))
		forward.ServeHTTP(w, r)
	})}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// fateHeader carries what is to be done to the answer of a request.
const fateHeader = "X-Fate"

type fate string

const (
	none fate = ""
	fail fate = "fail"
	lose fate = "lose"
	cut  fate = "cut"
)

// let waits while a request is to be held, and says whether it is still wanted.
func (p *FaultProxy) let(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.faults.Hold != "" && strings.Contains(r.URL.Path, p.faults.Hold) {
		if p.passed < p.faults.Pass {
			p.passed++
			return true
		}
		changed := p.changed
		p.held++
		p.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		p.mu.Lock()
		p.held--
		if r.Context().Err() != nil {
			return false
		}
	}
	return true
}

// Held returns how many requests wait because of Hold.
func (p *FaultProxy) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// next draws what is done to a request.
func (p *FaultProxy) next() (Faults, fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	f := p.faults
	what := none
	switch draw := rand.Float64(); {
	case draw < f.Fail:
		what = fail
	case draw < f.Fail+f.Lose:
		what = lose
	case draw < f.Fail+f.Lose+f.Cut:
		what = cut
	}
	if f.Down || what != none || f.Delay > 0 {
		p.done++
	}
	return f, what
}

// Set changes what is done to requests from now on.
func (p *FaultProxy) Set(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.passed = f, 0
	close(p.changed)
	p.changed = make(chan struct{})
}

// Counts returns how many requests came, and to how many something was done.
func (p *FaultProxy) Counts() (requests, done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.done
}

// Close ends the proxy and all connections through it.
func (p *FaultProxy) Close() error { return p.server.Close() }

// half is a body that breaks off.
type half struct {
	io.ReadCloser
	left int64
}

func (h *half) Read(b []byte) (int, error) {
	if h.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := h.ReadCloser.Read(b[:min(int64(len(b)), h.left)])
	h.left -= int64(n)
	return n, err
}
