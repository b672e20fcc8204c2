package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/net/netutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// also is a further HTTP listener of a Server, for a part of what the process serves.
type also struct {
	listener net.Listener
	server   *http.Server
}

// Also binds another address, with the settings and the TLS of the HTTP listener, for handler. It
// is served and stopped together with the server, which must not run yet. Errors: Invalid, Unavailable.
func (s *Server) Also(address string, port int, handler http.Handler) (net.Addr, error) {
	config, err := newTLS(secured{"also", s.cfg.HTTPTLS, s.cfg.TLS, s.issuer, []string{"h2", "http/1.1"}, false}, s.own, s.log)
	if err != nil {
		return nil, errs.New(errs.Invalid, "server.http_tls_config: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "listen on %s:%d: %w", address, port, err)
	}
	at := l.Addr()
	if s.cfg.HTTPConnLimit > 0 {
		l = netutil.LimitListener(l, s.cfg.HTTPConnLimit)
	}
	if s.proxied != nil {
		l = s.proxied.listener(l)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	handler = s.sources.note(timely(s.cfg.WriteTimeout, handler))
	if s.issuer != nil {
		handler = noChallenges(handler)
	}
	h := &http.Server{Handler: guard{s.log, s.own.httpPanics}.http(handler), TLSConfig: config, ReadTimeout: s.cfg.ReadTimeout, WriteTimeout: s.cfg.WriteTimeout}
	harden(h, s.log)
	s.also = append(s.also, also{l, h})
	return at, nil
}

// harden gives h what every HTTP server of a process has.
func harden(h *http.Server, log *slog.Logger) {
	h.ReadHeaderTimeout, h.IdleTimeout = readHeaderTimeout, idleTimeout
	h.MaxHeaderBytes = maxHeaderBytes
	h.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	h.Protocols = new(http.Protocols)
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetHTTP2(true)
	h.Protocols.SetUnencryptedHTTP2(true)
}

// serve returns when the listener ends; nil if it was told to.
func (a also) serve() error {
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stop lets requests end until ctx does.
func (a also) stop(ctx context.Context) {
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
}
