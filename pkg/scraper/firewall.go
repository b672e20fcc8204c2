package scraper

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dialTimeout ends a connection attempt to a target.
const dialTimeout = 10 * time.Second

// firewall decides which addresses scrapers may reach. It looks at the address that is connected to,
// after names were resolved, so that redirects and changing names do not pass it.
type firewall struct {
	allowed, blocked []netip.Prefix
	maxBytes         int64 // read from one connection; 0: any
}

// metadataPlaces are where clouds tell machines their credentials, beside the link-local addresses.
func metadataPlaces() []netip.Prefix {
	return networks([]string{"fd00:ec2::/32", "fd20:ce::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"})
}

// nat64 holds addresses of IPv4 within those of IPv6.
func nat64() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

func newFirewall(cfg *Config) firewall {
	return firewall{allowed: networks(cfg.AllowedNetworks), blocked: append(networks(cfg.BlockedNetworks), metadataPlaces()...)}
}

// dial connects to a target or a place of discovery.
func (f firewall) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("scrapers do not connect to %s", network)
	}
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %q: %w", address, err)
		}
		return f.check(at.Addr())
	}}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil || f.maxBytes == 0 {
		return c, err
	}
	return &boundedConn{Conn: c, left: f.maxBytes}, nil
}

// check says why ip may not be connected to.
func (f firewall) check(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	for _, p := range f.allowed {
		if p.Contains(ip) {
			return nil
		}
	}
	if nat64().Contains(ip) {
		b := ip.As16()
		return f.check(netip.AddrFrom4([4]byte(b[12:])))
	}
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || ip.Is4() && ip.As4()[0] == 0 {
		return fmt.Errorf("scrapers may not reach %s: it is of the machine itself, of its link, or multicast", ip)
	}
	for _, p := range f.blocked {
		if p.Contains(ip) {
			return fmt.Errorf("scrapers may not reach %s, which is in %s", ip, p)
		}
	}
	return nil
}

// boundedConn fails once too much was read from it.
type boundedConn struct {
	net.Conn
	left int64
}

// Read implements net.Conn.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the answer is too large")
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}
