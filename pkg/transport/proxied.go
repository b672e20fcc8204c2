package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/pires/go-proxyproto"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// proxied is who may say, in a header of the PROXY protocol before the first request of a connection, for
// whom it connects.
type proxied []netip.Prefix

// newProxied returns nil if the protocol is off. Errors: Invalid.
func newProxied(cfg *Config) (proxied, error) {
	if !cfg.ProxyProtocol {
		return nil, nil
	}
	out, err := parseNetworks("server.proxy_protocol_networks", cfg.ProxyNetworks)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Invalid, "server.proxy_protocol_enabled needs server.proxy_protocol_networks: anybody else could say that it is somebody else")
	}
	return out, nil
}

// parseNetworks reads networks, as 10.0.0.0/8, and single addresses. Errors: Invalid, which names the setting.
func parseNetworks(setting string, texts []string) (proxied, error) {
	out := proxied{}
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil && !strings.Contains(text, "/") {
			var a netip.Addr
			if a, err = netip.ParseAddr(text); err == nil {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "%s: %q is no network", setting, text)
		}
		out = append(out, p)
	}
	return out, nil
}

func (p proxied) trust(a net.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	return p.has(at.Addr())
}

func (p proxied) has(a netip.Addr) bool {
	for _, n := range p {
		if n.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// listener reads headers of the protocol from those that are trusted, and only from them.
func (p proxied) listener(l net.Listener) net.Listener {
	return &proxyproto.Listener{Listener: l, ReadHeaderTimeout: readHeaderTimeout, ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
		if p.trust(o.Upstream) {
			return proxyproto.USE, nil
		}
		return proxyproto.SKIP, nil
	}}
}

// peerKey is the key of the address of who is connected, whatever it says.
type peerKey struct{}

// peer puts that address into the context of the requests of a connection.
func (p proxied) peer(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if h, ok := c.(*proxyproto.Conn); ok {
		c = h.Raw()
	}
	return context.WithValue(ctx, peerKey{}, c.RemoteAddr())
}

// honest is for a listener that reads such headers from everybody, as dskit's does: what those say who are not
// trusted is undone.
func (p proxied) honest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := r.Context().Value(peerKey{}).(net.Addr); ok && !p.trust(a) {
			r.RemoteAddr = a.String()
		}
		next.ServeHTTP(w, r)
	})
}
