package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// restTime is how long an instance that could not be reached is left alone, unless all are.
	restTime = 5 * time.Second
	// resolveEvery is how often names are looked up.
	resolveEvery   = 10 * time.Second
	dialTimeout    = 3 * time.Second
	idlePerHost    = 100
	resolveTimeout = 5 * time.Second
)

// UpstreamConfig says where the services are that this process does not run; app mounts it as gateway.
type UpstreamConfig struct{ Addresses []string }

// Declare implements config.Declarer.
func (c *UpstreamConfig) Declare(s *config.Set) {
	s.Strings(&c.Addresses, "upstreams", nil, "Where the services are that this process does not run: service=http://host:port, again for each instance, as distributor=http://d1:8080,querier=dns+http://queriers:8080. With dns+ all addresses of the name are instances.")
}

// Validate implements config.Validator.
func (c *UpstreamConfig) Validate() error {
	_, err := parseUpstreams(c.Addresses)
	return err
}

func parseUpstreams(items []string) (map[string][]*url.URL, error) {
	out := map[string][]*url.URL{}
	for _, item := range items {
		service, address, ok := strings.Cut(item, "=")
		u, err := url.Parse(address)
		if !ok || err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "dns+http", "dns+https"}, u.Scheme) || strings.Trim(u.Path, "/") != "" {
			return nil, config.Wrong("upstreams", "%q is not service=http://host:port", item)
		}
		out[service] = append(out[service], u)
	}
	return out, nil
}

// Upstreams passes requests on to services in other processes.
type Upstreams struct {
	pools map[string]*pool
	log   *slog.Logger
}

// NewUpstreams returns what cfg names. Errors: Invalid.
func NewUpstreams(cfg UpstreamConfig, log *slog.Logger) (*Upstreams, error) {
	by, err := parseUpstreams(cfg.Addresses)
	if err != nil {
		return nil, err
	}
	u := &Upstreams{pools: map[string]*pool{}, log: log}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, idlePerHost
	transport.DisableCompression = true // bodies go through as they are
	for service, addresses := range by {
		p := &pool{configured: addresses, transport: transport, resting: map[string]time.Time{}}
		p.proxy = &httputil.ReverseProxy{
			Rewrite:       func(*httputil.ProxyRequest) {}, // the transport picks the instance
			Transport:     p,
			FlushInterval: -1, // streams must not wait
			ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			ErrorHandler:  u.failed(service),
		}
		u.pools[service] = p
	}
	return u, nil
}

// Of returns the handler for a service; nil: nobody said where it is.
func (u *Upstreams) Of(service string) http.Handler {
	if u == nil || u.pools[service] == nil {
		return nil
	}
	return u.pools[service].proxy
}

// failed answers when no instance could.
func (u *Upstreams) failed(service string) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if errs.KindOf(err) == errs.Canceled {
			w.WriteHeader(errs.Canceled.HTTPStatus())
			return
		}
		u.log.Warn("request not passed on, client gets 503", "service", service, "path", r.URL.Path, "err", err)
		h := w.Header()
		h.Set("Retry-After", "5")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, service+" cannot be reached\n") // the client is gone if this fails
	}
}

// pool is the instances of one service, in turn.
type pool struct {
	configured []*url.URL
	transport  http.RoundTripper
	proxy      *httputil.ReverseProxy
	turn       atomic.Uint64

	mu       sync.Mutex // guards what follows
	resolved []*url.URL
	looked   time.Time
	resting  map[string]time.Time // by host, until when
}

// instances returns those to try, in the order in which to do so: in turn, the ones that rest at last.
func (p *pool) instances(ctx context.Context) []*url.URL {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.resolved == nil || now.Sub(p.looked) > resolveEvery {
		p.resolve(ctx)
		p.looked = now
	}
	n := len(p.resolved)
	if n == 0 {
		return nil
	}
	start := int(p.turn.Add(1) % uint64(n))
	var fit, tired []*url.URL
	for i := range n {
		u := p.resolved[(start+i)%n]
		if now.Before(p.resting[u.Host]) {
			tired = append(tired, u)
		} else {
			fit = append(fit, u)
		}
	}
	return append(fit, tired...)
}

// resolve looks names up; what cannot be looked up keeps its addresses. It needs p.mu.
func (p *pool) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
	defer cancel()
	var out []*url.URL
	for _, u := range p.configured {
		scheme, dynamic := strings.CutPrefix(u.Scheme, "dns+")
		if !dynamic {
			out = append(out, u)
			continue
		}
		addresses, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
		if err != nil {
			return
		}
		for _, a := range addresses {
			out = append(out, &url.URL{Scheme: scheme, Host: net.JoinHostPort(a, u.Port())})
		}
	}
	p.resolved = out
}

// RoundTrip sends r to the first instance that can be reached. Nothing has been sent to those before.
func (p *pool) RoundTrip(r *http.Request) (*http.Response, error) {
	body := r.Body
	if body != nil {
		defer func() { _ = body.Close() }()
	}
	last := errs.New(errs.Unavailable, "no instance is known")
	for _, u := range p.instances(r.Context()) {
		try := r.Clone(r.Context())
		try.URL.Scheme, try.URL.Host = u.Scheme, u.Host
		if body != nil {
			try.Body = io.NopCloser(body)
		}
		resp, err := p.transport.RoundTrip(try)
		if err == nil {
			return resp, nil
		}
		last = err
		dial, isNet := errors.AsType[*net.OpError](err)
		if !isNet || dial.Op != "dial" || r.Context().Err() != nil {
			return nil, err
		}
		p.mu.Lock()
		p.resting[u.Host] = time.Now().Add(restTime)
		p.mu.Unlock()
	}
	return nil, last
}
