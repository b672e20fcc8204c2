package app

import (
	"cmp"
	"net"
	"strings"

	"github.com/grafana/dskit/crypto/tls"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv/memberlist"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// checkGossip refuses gossip that cannot work, or that strangers could join.
func (c *Config) checkGossip() error {
	if !c.usesGossip() {
		return nil
	}
	if _, err := c.gossipZones(); err != nil {
		return err
	}
	m := &c.Memberlist
	if m.TLS.Used() {
		if _, _, err := m.TLS.Fill(c.Server.GRPCTLS, c.Clients); err != nil {
			return err
		}
	}
	if !c.Exposure.Unsafe && !transport.Loopback(m.BindAddr) && !m.TLS.Authenticates() {
		return config.Wrong("memberlist.bind_addr", "is %q, which other machines can reach, but nothing authenticates the members of gossip, and whoever joins can make itself an ingester: "+
			"set memberlist.tls_enabled, and no memberlist.tls_transition, so that members show each other certificates, set it to 127.0.0.1, "+
			"or accept that with auth.unsafe_listen_without_authentication (-auth.unsafe-listen-without-authentication) on a network that only the cluster uses", m.BindAddr)
	}
	return nil
}

// advertised is where members reach this one.
func (c *MemberlistConfig) advertised() (addr string, port int, err error) {
	addr, port = cmp.Or(c.AdvertiseAddr, c.BindAddr), cmp.Or(c.AdvertisePort, c.BindPort)
	if ip := net.ParseIP(addr); ip != nil && ip.IsUnspecified() {
		if addr, err = firstAddr(); err != nil {
			return "", 0, config.Wrong("memberlist.advertise_addr", "is empty, and the process listens on all addresses: %w", err)
		}
	}
	return addr, port, nil
}

// gossipDoor puts the door before m that asks members for certificates, if settings want it.
func (a *App) gossipDoor(m *memberlist.KVConfig) error {
	c := &a.cfg.Memberlist
	listen, dial, err := c.TLS.Fill(a.cfg.Server.GRPCTLS, a.cfg.Clients)
	if !c.TLS.Used() {
		if err == nil && !transport.Loopback(c.BindAddr) {
			a.log.Warn("members of gossip are not authenticated, though there are certificates for it: set memberlist.tls_enabled")
		}
		return nil
	}
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	door, err := s.NewGossipDoor(c.TLS, listen, c.BindAddr, c.BindPort)
	if err != nil {
		return err
	}
	inner := door.Inner()
	m.TCPTransport.BindAddrs, m.TCPTransport.BindPort = flagext.StringSlice{inner.IP.String()}, inner.Port
	if c.TLS.Enabled {
		m.TCPTransport.TLSEnabled = true
		m.TCPTransport.TLS = tls.ClientConfig{CertPath: dial.TLSCert, KeyPath: dial.TLSKey, CAPath: dial.TLSCA, ServerName: dial.TLSName,
			MinVersion: dial.TLS.MinVersion, CipherSuites: strings.Join(dial.TLS.CipherSuites, ",")}
	}
	return a.serve("gossip-door", door)
}
