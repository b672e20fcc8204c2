package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// lookEvery is how often instances are looked for, and each asked whether it is ready.
	lookEvery   = 5 * time.Second
	dialTimeout = 3 * time.Second
	idlePerHost = 100
)

// UpstreamConfig says where the services are that this process does not run; app mounts it as gateway.
type UpstreamConfig struct{ Addresses []string }

// Declare implements config.Declarer.
func (c *UpstreamConfig) Declare(s *config.Set) {
	s.Strings(&c.Addresses, "upstreams", nil, "Addresses of the services that this process does not run: service=http://host:port, or https, repeated for each instance, for example distributor=http://d1:8080,querier=dns+http://queriers:8080,ruler=ring+http://ruler:8080. dns+ stands for all addresses of the name, ring+ for all healthy members of the service's ring at that port. Instances that are not ready are skipped.")
}

// Validate implements config.Validator.
func (c *UpstreamConfig) Validate() error {
	_, err := parseUpstreams(c.Addresses)
	return err
}

// Rings are the names of the rings that cfg looks for instances in.
func (c *UpstreamConfig) Rings() []string {
	var out []string
	by, _ := parseUpstreams(c.Addresses)
	for _, addresses := range by {
		for _, u := range addresses {
			if strings.HasPrefix(u.Scheme, ringPrefix) && !slices.Contains(out, u.Hostname()) {
				out = append(out, u.Hostname())
			}
		}
	}
	slices.Sort(out)
	return out
}

// Has says whether somebody said where a service is.
func (c *UpstreamConfig) Has(service string) bool {
	by, err := parseUpstreams(c.Addresses)
	return err == nil && len(by[service]) > 0
}

// The ways in which instances are found, beside their addresses.
const dnsPrefix, ringPrefix = "dns+", "ring+"

func parseUpstreams(items []string) (map[string][]*url.URL, error) {
	schemes := []string{"http", "https", dnsPrefix + "http", dnsPrefix + "https", ringPrefix + "http", ringPrefix + "https"}
	out := map[string][]*url.URL{}
	for _, item := range items {
		service, address, ok := strings.Cut(item, "=")
		u, err := url.Parse(address)
		if !ok || err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) || strings.Trim(u.Path, "/") != "" {
			return nil, config.Wrong("upstreams", "%q is not service=http://host:port", item)
		}
		out[service] = append(out[service], u)
	}
	return out, nil
}

// UpstreamDeps is what Upstreams needs beside its settings.
type UpstreamDeps struct {
	Log *slog.Logger
	Reg prometheus.Registerer
	// Members returns the addresses, without ports, of the healthy members of a ring. Nil: there are no
	// rings. Errors: Unavailable.
	Members func(ctx context.Context, ring string) ([]string, error)
	// Dial returns what connects by TLS, to speak one of the protocols. Its errors are of dial, as nothing was
	// sent. Nil: https upstreams are checked by the authorities of the system.
	Dial func(protocols ...string) func(ctx context.Context, network, addr string) (net.Conn, error)
	// Wrap is put around what sends requests; nil: nothing is.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// Upstreams passes requests on to services in other processes. While it runs it looks for their
// instances and asks these whether they are ready.
type Upstreams struct {
	services.Service
	pools map[string]*pool
	log   *slog.Logger
	// instances is how many each service has, by what can be done with them.
	instances *prometheus.GaugeVec
	again     *prometheus.CounterVec
	direct    *direct
}

// NewUpstreams returns what cfg names. Errors: Invalid.
func NewUpstreams(cfg UpstreamConfig, deps UpstreamDeps) (*Upstreams, error) {
	by, err := parseUpstreams(cfg.Addresses)
	if err != nil {
		return nil, err
	}
	u := &Upstreams{pools: map[string]*pool{}, log: deps.Log, instances: promauto.With(deps.Reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "amphora_gateway_upstream_instances",
		Help: "Instances of services that requests are passed on to, by whether they are ready. None ready: requests of the service fail.",
	}, []string{"service", "state"}), again: promauto.With(deps.Reg).NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_gateway_upstream_retries_total",
		Help: "Reads that an instance took and did not answer, because it stopped, ended or hung, and that were sent once more.",
	}, []string{"service"})}
	u.direct = newDirect(newTransport(false, deps))
	plain, streams := http.RoundTripper(u.direct), http.RoundTripper(newTransport(true, deps))
	if deps.Wrap != nil {
		plain, streams = deps.Wrap(plain), deps.Wrap(streams)
	}
	buffers := &copyBuffers{sync.Pool{New: func() any { return new([copyBytes]byte) }}}
	for service, addresses := range by {
		p := &pool{service: service, configured: addresses, members: deps.Members, transport: plain, streams: streams, log: deps.Log}
		p.proxy = &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { // the transport picks the instance
				for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto"} { // which were found out here
					if v := r.In.Header[name]; v != nil {
						r.Out.Header[name] = v
					}
				}
				if held, ok := r.In.Body.(inMemory); ok { // which the proxy hides, as other bodies cannot be read later
					r.Out.Body = held
				}
			},
			Transport:     p,
			FlushInterval: -1, // streams must not wait
			BufferPool:    buffers,
			ErrorLog:      slog.NewLogLogger(deps.Log.With("service", service).Handler(), slog.LevelWarn), // of answers that break off
			ErrorHandler:  u.failed(service),
		}
		reads := *p.proxy
		reads.Transport = reader{p}
		p.reads = &reads
		p.again = u.again.WithLabelValues(service)
		u.pools[service] = p
	}
	u.Service = services.NewTimerService(lookEvery, u.look, u.look, nil)
	return u, nil
}

// copyBytes is how much of an answer is passed on at once, as much as services write at once.
const copyBytes = 64 << 10

// copyBuffers are what answers are copied through. It implements httputil.BufferPool.
type copyBuffers struct{ arrays sync.Pool }

// Get implements httputil.BufferPool.
func (b *copyBuffers) Get() []byte {
	return b.arrays.Get().(*[copyBytes]byte)[:] //nolint:forcetypeassert // It holds nothing else.
}

// Put implements httputil.BufferPool.
func (b *copyBuffers) Put(p []byte) { b.arrays.Put((*[copyBytes]byte)(p)) }

// newTransport returns one that keeps connections; with h2, for gRPC, it speaks HTTP/2 only.
func newTransport(h2 bool, deps UpstreamDeps) *http.Transport {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: dialTimeout,
		DisableCompression: true, // bodies go through as they are
		ForceAttemptHTTP2:  true, ExpectContinueTimeout: time.Second,
	}
	protocol := "http/1.1"
	if h2 {
		protocol = "h2"
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
		t.Protocols.SetHTTP2(true)
	}
	if deps.Dial != nil {
		t.DialTLSContext = deps.Dial(protocol)
	}
	return t
}

// look finds instances and asks them whether they are ready.
func (u *Upstreams) look(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range u.pools {
		wg.Go(func() {
			p.look(ctx)
			p.probe(ctx)
			fit, tired := p.count()
			u.instances.WithLabelValues(p.service, "ready").Set(float64(fit))
			u.instances.WithLabelValues(p.service, "left_out").Set(float64(tired))
		})
	}
	wg.Wait()
	u.direct.sweep(time.Now())
	return nil
}

// Of returns the handler for a service; nil: nobody said where it is. What only reads may be sent to more than one
// instance.
func (u *Upstreams) Of(service string, reads bool) http.Handler {
	switch {
	case u == nil || u.pools[service] == nil:
		return nil
	case reads:
		return u.pools[service].reads
	}
	return u.pools[service].proxy
}

// failed answers when no instance could.
func (u *Upstreams) failed(service string) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if kind := errs.KindOf(err); kind == errs.Canceled || kind == errs.Invalid { // the client went away, or sent half a request
			w.WriteHeader(kind.HTTPStatus())
			return
		}
		u.log.Warn("request not passed on, client gets 503", "service", service, "path", r.URL.Path, "err", err)
		h := w.Header()
		if isGRPC(r) {
			h.Set("Content-Type", "application/grpc")
			h.Set("Grpc-Status", strconv.Itoa(int(errs.Unavailable.GRPCCode())))
			h.Set("Grpc-Message", service+" cannot be reached")
			w.WriteHeader(http.StatusOK)
			return
		}
		h.Set("Retry-After", "5")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, service+" cannot be reached\n") // the client is gone if this fails
	}
}
