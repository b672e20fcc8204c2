package alertmanager

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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
	for _, text := range limits.AlertmanagerBlockCIDRs.Of(v) {
		// The limit refuses what cannot be parsed.
		if net, err := netip.ParsePrefix(text); err == nil && net.Contains(ip) {
			return fmt.Errorf("the receivers' firewall blocks %s, which is in %s", ip, text)
		}
	}
	return nil
}

func public(ip netip.Addr) bool {
	return !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() &&
		!ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() && !ip.IsInterfaceLocalMulticast()
}
