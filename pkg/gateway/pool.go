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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// restTime is how long an instance that could not be reached is left alone, unless all are.
	restTime = 5 * time.Second
	// findTimeout bounds a look-up of names or members, probeTimeout a question whether an instance is ready.
	findTimeout, probeTimeout = 5 * time.Second, 2 * time.Second
	// probesAtOnce bounds the questions under way for one service.
	probesAtOnce = 16
)

// instance is one process that runs a service.
type instance struct {
	url      *url.URL
	unready  atomic.Bool
	restless atomic.Int64 // until when it is left alone, Unix nanoseconds
	silent   atomic.Int64 // how many questions in a row had no answer
	deaf     atomic.Bool  // it speaks TLS, and its address here is without
	waiting  waiting
}

func (i *instance) fit(now time.Time) bool {
	return !i.unready.Load() && now.UnixNano() >= i.restless.Load()
}

// pool is the instances of one service, in turn.
type pool struct {
	service    string
	configured []*url.URL
	members    func(ctx context.Context, ring string) ([]string, error)
	transport  http.RoundTripper
	streams    http.RoundTripper // of gRPC
	proxy      *httputil.ReverseProxy
	reads      *httputil.ReverseProxy // of what may be asked again
	again      prometheus.Counter
	log        *slog.Logger
	turn       atomic.Uint64
	found      atomic.Pointer[[]*instance] // nil: nobody has looked yet
}

// instances returns those to try, in the order in which to do so: in turn, the ones that cannot be used at last.
//
// While a cluster changes to TLS every process has two addresses, of which the one that begins to answer is not known
// to be ready yet: so those that are without TLS, where it is spoken, come last of all.
func (p *pool) instances(ctx context.Context) []*instance {
	if p.found.Load() == nil {
		p.look(ctx)
	}
	all := *p.found.Load()
	n := len(all)
	if n == 0 {
		return nil
	}
	now, start := time.Now(), int(p.turn.Add(1)%uint64(n))
	fit, tired, deaf := make([]*instance, 0, n), []*instance(nil), []*instance(nil)
	for i := range n {
		switch x := all[(start+i)%n]; {
		case x.fit(now):
			fit = append(fit, x)
		case x.deaf.Load():
			deaf = append(deaf, x)
		default:
			tired = append(tired, x)
		}
	}
	return slices.Concat(fit, tired, deaf)
}

// count returns how many instances can be used, and how many not.
func (p *pool) count() (fit, tired int) {
	now := time.Now()
	for _, x := range *p.found.Load() {
		if x.fit(now) {
			fit++
		} else {
			tired++
		}
	}
	return fit, tired
}

// look finds the instances; if it cannot, those found before stay. What is known of one that stays is kept.
func (p *pool) look(ctx context.Context) {
	urls, err := p.find(ctx)
	if err != nil {
		p.log.Warn("instances of a service not looked up, those found before stay in use", "service", p.service, "err", err)
		p.found.CompareAndSwap(nil, &[]*instance{})
		return
	}
	before := map[string]*instance{}
	if old := p.found.Load(); old != nil {
		for _, x := range *old {
			before[x.url.String()] = x
		}
	}
	next := make([]*instance, len(urls))
	for i, u := range urls {
		if next[i] = before[u.String()]; next[i] == nil {
			next[i] = &instance{url: u}
		}
	}
	p.found.Store(&next)
}

// find looks names and members up.
func (p *pool) find(ctx context.Context) ([]*url.URL, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), findTimeout)
	defer cancel()
	var out []*url.URL
	for _, u := range p.configured {
		var hosts []string
		var err error
		scheme, byName := strings.CutPrefix(u.Scheme, dnsPrefix)
		inRing := false
		if !byName {
			scheme, inRing = strings.CutPrefix(u.Scheme, ringPrefix)
		}
		switch {
		case byName:
			hosts, err = net.DefaultResolver.LookupHost(ctx, u.Hostname())
		case inRing && p.members != nil:
			hosts, err = p.members(ctx, u.Hostname())
		case inRing:
			err = errs.New(errs.Unavailable, "there are no rings here")
		default:
			out = append(out, u)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, h := range hosts {
			at := &url.URL{Scheme: scheme, Host: h}
			if strings.Contains(h, ":") {
				at.Host = "[" + h + "]"
			}
			if port := u.Port(); port != "" {
				at.Host = net.JoinHostPort(h, port)
			}
			out = append(out, at)
		}
	}
	return out, nil
}

// probe asks every instance whether it is ready.
func (p *pool) probe(ctx context.Context) {
	room := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	for _, x := range *p.found.Load() {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ready, answered := p.ready(ctx, x)
			x.unready.Store(!ready)
			if answered {
				x.silent.Store(0)
			} else if x.silent.Add(1) >= silentProbes && ctx.Err() == nil {
				x.waiting.giveUp()
			}
		})
	}
	wg.Wait()
}

// ready says whether an instance takes requests, and whether it answered at all. One that does not know the
// question takes them.
func (p *pool) ready(ctx context.Context, x *instance) (ready, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.url.Scheme+"://"+x.url.Host+"/ready", http.NoBody)
	if err != nil {
		return false, false
	}
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return false, false
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	x.deaf.Store(wantsTLS(resp))
	return resp.StatusCode < http.StatusInternalServerError && !x.deaf.Load(), true
}

// wantsTLS recognizes the answer of a listener with TLS to a request without. It has not read the request.
func wantsTLS(resp *http.Response) bool {
	return resp.StatusCode == http.StatusBadRequest && !resp.ProtoAtLeast(1, 1) && len(resp.Header) == 0 && resp.Request.URL.Scheme == "http"
}
