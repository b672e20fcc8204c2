package alertmanager

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// dialTimeout ends a connection attempt to a receiver.
const dialTimeout = 10 * time.Second

// firewall decides which addresses a tenant's receivers may be at. It looks at the address that is
// connected to, after names were resolved, so that redirects and changing names do not pass it.
type firewall struct{ view func() limits.View }

// active says whether anything is blocked.
func (f firewall) active() bool {
	v := f.view()
	return limits.AlertmanagerBlockPrivate.Of(v) || len(limits.AlertmanagerBlockCIDRs.Of(v)) > 0
}

// dial connects to a receiver.
func (f firewall) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("receiver address %q: %w", address, err)
		}
		return f.check(at.Addr())
	}}
	return d.DialContext(ctx, network, addr)
}

// check says why ip may not be connected to.
func (f firewall) check(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	v := f.view()
	if limits.AlertmanagerBlockPrivate.Of(v) && !public(ip) {
		return fmt.Errorf("the receivers' firewall blocks %s, which is a private address", ip)
	}
	inner, _ := carried(ip)
	for _, text := range limits.AlertmanagerBlockCIDRs.Of(v) {
		// The limit refuses what cannot be parsed.
		if net, err := netip.ParsePrefix(text); err == nil && (net.Contains(ip) || net.Contains(inner)) {
			return fmt.Errorf("the receivers' firewall blocks %s, which is in %s", ip, text)
		}
	}
	return nil
}

// reserved are ranges beside those that the standard library knows to be no addresses of the internet:
// this host, carriers' own, protocol assignments, tests of networks, and reserved.
func reserved() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8), netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{192}), 24), netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4)}
}

// public says whether ip is an address of the internet.
func public(ip netip.Addr) bool {
	if inner, ok := carried(ip); ok {
		return public(inner)
	}
	return !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() &&
		!ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() && !ip.IsInterfaceLocalMulticast() &&
		!slices.ContainsFunc(reserved(), func(p netip.Prefix) bool { return p.Contains(ip) })
}

// carried returns the IPv4 address to which a translator or tunnel brings what is sent to an IPv6
// address: 64:ff9b::/96 and 64:ff9b:1::/48, 2002::/16, and ::/96.
func carried(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() || ip.IsLoopback() || ip.IsUnspecified() {
		return ip, false
	}
	b := ip.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case [4]byte(b[:4]) == [4]byte{0, 0x64, 0xff, 0x9b}:
		return last, true
	case [12]byte(b[:12]) == [12]byte{}:
		return last, true
	}
	return ip, false
}
