package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// origin is where a request comes from.
type origin struct {
	address string // IP
	secure  bool   // TLS all the way as far as we know
}

// networks are those of proxies that are believed.
type networks []netip.Prefix

// The headers in which proxies say for whom they ask.
const (
	forwardedFor = "x-forwarded-for" // with X-Forwarded-Proto
	forwardedOne = "forwarded"       // RFC 7239
)

func parseNetworks(texts []string) (networks, error) {
	var out networks
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			a, err := netip.ParseAddr(t)
			if err != nil {
				return nil, config.Wrong("trusted_proxies", "%q is no network", t)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}

func (n networks) contain(a netip.Addr) bool {
	for _, p := range n {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// origin walks back from the peer through proxies that are believed.
// Header is the one that they are known to set: another one is what a client sent through them.
func (n networks) origin(r *http.Request, header string) origin {
	o := origin{address: r.RemoteAddr, secure: r.TLS != nil}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		o.address = host
	}
	peer, err := netip.ParseAddr(o.address)
	if err != nil || !n.contain(peer) {
		return o
	}
	hops, proto := forwarded(r.Header, header)
	if proto != "" {
		o.secure = proto == "https"
	}
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(hops[i])
		if err != nil {
			break
		}
		o.address = a.Unmap().String()
		if !n.contain(a) {
			break
		}
	}
	return o
}

// forwarded returns the addresses that a header names, the nearest last, and the protocol that the nearest
// proxy was asked by.
func forwarded(h http.Header, header string) (hops []string, proto string) {
	if header == forwardedOne {
		for element := range strings.SplitSeq(strings.Join(h.Values("Forwarded"), ","), ",") {
			for pair := range strings.SplitSeq(element, ";") {
				k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
				v = strings.Trim(v, `"`)
				switch strings.ToLower(k) {
				case "for":
					hops = append(hops, withoutPort(v))
				case "proto":
					proto = strings.ToLower(v)
				}
			}
		}
		return hops, proto
	}
	if said := h.Values("X-Forwarded-Proto"); len(said) > 0 {
		last := said[len(said)-1]
		proto = strings.ToLower(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
	}
	for _, f := range h.Values("X-Forwarded-For") {
		for a := range strings.SplitSeq(f, ",") {
			hops = append(hops, withoutPort(strings.TrimSpace(a)))
		}
	}
	return hops, proto
}

func withoutPort(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	return strings.Trim(s, "[]")
}

// newRequestID returns a random UUID, of version 4.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return uuid(b, 4)
}

// newEventID returns a UUID of version 7, which begins with the time: records of the same second are in its order.
func newEventID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16|uint64(b[6])<<8|uint64(b[7]))
	return uuid(b, 7)
}

func uuid(b [16]byte, version byte) string {
	b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
	t := hex.EncodeToString(b[:])
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}
