package transport

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
)

const (
	// gossipHandshake is how long a connection may take to say who it is.
	gossipHandshake = 5 * time.Second
	// gossipConnection is far above what an exchange of all that members know takes, which they bound themselves.
	gossipConnection = time.Minute
	// gossipConnections is far above what members have open at once: each opens some fifteen a second, for a moment.
	gossipConnections = 4096
	gossipLogEvery    = 10 * time.Second
	// tlsRecord is the first byte of a TLS connection. Gossip begins with others.
	tlsRecord = 22
)

// GossipTLS is how members prove to each other who they are, mounted as memberlist.
type GossipTLS struct {
	Enabled    bool // members are called by TLS
	Transition bool // and may call with or without it
	Cert, Key  string
	CA         string
	Name       string
	Policy     TLSPolicy
}

// Declare implements config.Declarer.
func (c *GossipTLS) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "tls_enabled", false, "Gossip by mutual TLS: members authenticate each other with certificates.")
	s.Bool(&c.Transition, "tls_transition", false, "Accept both plain and TLS connections of members, for enabling TLS in a running cluster. tls_enabled decides only how this member connects to others.").Expert()
	s.String(&c.Cert, "tls_cert_path", "", "Certificate of this member for server and client use, read again when it changes. Empty: those of server.grpc_tls_config and ingester_client.")
	s.String(&c.Key, "tls_key_path", "", "Key of the certificate of this member.")
	s.String(&c.CA, "tls_ca_path", "", "CA certificates that members' certificates are checked against.")
	s.String(&c.Name, "tls_server_name", "", "Name expected in members' certificates. Empty: ingester_client.tls_server_name, else their address.").Expert()
	s.Mount("", &clientRows{&c.Policy, "memberlist."})
}

// Validate implements config.Validator.
func (c *GossipTLS) Validate() error {
	if n := len(c.Cert) * len(c.Key) * len(c.CA); n == 0 && c.Cert+c.Key+c.CA != "" {
		return config.Wrong("tls_cert_path", "is %q, tls_key_path %q and tls_ca_path %q: all three are needed, or none, for those of server.grpc_tls_config and ingester_client", c.Cert, c.Key, c.CA)
	}
	return nil
}

// Used says whether any connection is by TLS.
func (c *GossipTLS) Used() bool { return c.Enabled || c.Transition }

// Authenticates says whether nobody joins without a certificate.
func (c *GossipTLS) Authenticates() bool { return c.Enabled && !c.Transition }

// Fill takes what is not set from the TLS of calls between processes. Errors: Invalid.
func (c *GossipTLS) Fill(server TLSConfig, client ClientConfig) (listen TLSConfig, dial ClientConfig, err error) {
	listen, dial = TLSConfig{CertFile: c.Cert, KeyFile: c.Key, ClientCAFile: c.CA}, ClientConfig{TLSCert: c.Cert, TLSKey: c.Key, TLSCA: c.CA}
	if c.Cert == "" {
		if !server.authenticates() || client.TLSCert == "" || client.TLSKey == "" {
			return listen, dial, config.Wrong("memberlist.tls_enabled", "needs memberlist.tls_cert_path, tls_key_path and tls_ca_path, or calls between processes that show certificates: "+
				"server.grpc_tls_config with cert_file, key_file and client_ca_file, and ingester_client with tls_cert_path, tls_key_path and tls_ca_path")
		}
		listen, dial = server, client
	}
	dial.TLSName, dial.TLS = cmp.Or(c.Name, client.TLSName), c.Policy
	return listen, dial, nil
}

// GossipDoor takes connections of gossip for the library that speaks it, which listens on a loopback address: the
// library has TLS, but asks nobody who calls for a certificate. It is a service: stopping it closes all.
type GossipDoor struct {
	services.Service
	listener net.Listener
	inner    net.TCPAddr
	config   *tls.Config
	wrap     *tls.Config // how the library is called; nil: it does not speak TLS
	plain    bool        // connections without TLS are taken, too
	taken    *prometheus.CounterVec
	refused  *prometheus.CounterVec
	log      *telemetry.Throttle

	serving sync.WaitGroup
	mu      sync.Mutex // guards what follows
	open    map[net.Conn]struct{}
	closed  bool
}

// NewGossipDoor listens for gossip on address and port as c says, with the certificates of listen, and takes
// connections from now on. Errors: Invalid, Unavailable.
func (s *Server) NewGossipDoor(c GossipTLS, listen TLSConfig, address string, port int) (*GossipDoor, error) {
	conf, err := newTLS(secured{"gossip", listen, c.Policy, nil, nil, false}, s.own, s.log)
	if err != nil {
		return nil, config.Wrong("memberlist.tls_cert_path", "%w", err)
	}
	latest := conf.GetConfigForClient
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		now, err := latest(h)
		if err != nil {
			return nil, err
		}
		// Members close connections without reading: a ticket that arrives before they do resets the connection, and
		// what they sent last is lost.
		now = now.Clone()
		now.SessionTicketsDisabled = true
		return now, nil
	}
	f := promauto.With(s.own.reg)
	d := &GossipDoor{config: conf, plain: c.Transition, open: map[net.Conn]struct{}{}, log: telemetry.NewThrottle(s.log, gossipLogEvery),
		taken: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_gossip_connections_total",
			Help: "Connections of members that were taken, by TLS or plain. In a transition: once plain ones rise no more on any member, it can end."}, []string{"protocol"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_gossip_connections_refused_total",
			Help: "Connections for gossip that were refused. plain: without TLS; handshake: without a certificate that is valid here. A rise means a member with other settings, or a stranger."}, []string{"reason"})}
	if c.Enabled {
		// It is the listener that this process opened on its loopback address just now.
		d.wrap = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return nil, config.Wrong("memberlist.bind_addr", "cannot be listened on: %w", err)
	}
	if d.inner, err = loopbackPort(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d.listener = l
	d.serving.Go(d.accept)
	d.Service = services.NewIdleService(nil, d.stop)
	return d, nil
}

// loopbackPort finds an address that nobody listens on.
func loopbackPort() (net.TCPAddr, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return net.TCPAddr{}, err
	}
	at := *l.Addr().(*net.TCPAddr)
	return at, l.Close()
}

// Inner is where the library has to listen.
func (d *GossipDoor) Inner() net.TCPAddr { return d.inner }

// Addr is where members call.
func (d *GossipDoor) Addr() net.Addr { return d.listener.Addr() }

func (d *GossipDoor) accept() {
	for {
		c, err := d.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no file descriptors, say
			d.log.Log(context.Background(), slog.LevelWarn, "connection for gossip not accepted", slog.Any("err", err))
			time.Sleep(10 * time.Millisecond)
		case d.keep(c):
			d.serving.Go(func() { d.serve(c) })
		}
	}
}

// keep notes an open connection, and closes it if the door is closed or there are too many.
func (d *GossipDoor) keep(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.open) >= 2*gossipConnections { // with those to the library
		_ = c.Close()
		return false
	}
	d.open[c] = struct{}{}
	return true
}

func (d *GossipDoor) drop(c net.Conn) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, c)
}

// halfCloser is a connection of which one direction can be ended.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// peeked is a connection of which the beginning was looked at.
type peeked struct {
	halfCloser
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func (d *GossipDoor) serve(raw net.Conn) {
	defer d.drop(raw)
	_ = raw.SetDeadline(time.Now().Add(gossipHandshake))
	member, protocol := d.admit(raw)
	if member == nil {
		return
	}
	_ = raw.SetDeadline(time.Now().Add(gossipConnection))
	c, err := net.DialTimeout("tcp", d.inner.String(), gossipHandshake)
	if err != nil || !d.keep(c) {
		return // the library starts or stops; members try again
	}
	defer d.drop(c)
	_ = c.SetDeadline(time.Now().Add(gossipConnection))
	inner, err := d.library(c)
	if err != nil {
		return
	}
	d.taken.WithLabelValues(protocol).Inc()
	var both sync.WaitGroup
	both.Go(func() { pass(inner, member) })
	pass(member, inner)
	both.Wait()
}

// admit finds out who calls; nil if nobody who may.
func (d *GossipDoor) admit(raw net.Conn) (member halfCloser, protocol string) {
	tcp, ok := raw.(halfCloser)
	if !ok {
		panic("BUG: a connection that is not of TCP")
	}
	p := peeked{tcp, bufio.NewReader(raw)}
	first, err := p.r.Peek(1)
	if err != nil {
		return nil, "" // it says nothing: a probe of the port, say
	}
	from := slog.String("from", raw.RemoteAddr().String())
	if first[0] != tlsRecord {
		if d.plain {
			return p, "plain"
		}
		d.refused.WithLabelValues("plain").Inc()
		d.log.Log(context.Background(), slog.LevelWarn, "connection for gossip refused: it is without TLS", from)
		return nil, ""
	}
	c := tls.Server(p, d.config)
	if err := c.Handshake(); err != nil {
		d.refused.WithLabelValues("handshake").Inc()
		d.log.Log(context.Background(), slog.LevelWarn, "connection for gossip refused: it shows no certificate that is valid here", from, slog.Any("err", err))
		return nil, ""
	}
	return c, "tls"
}

// library is a connection to the library as it speaks.
func (d *GossipDoor) library(c net.Conn) (halfCloser, error) {
	if d.wrap == nil {
		return c.(*net.TCPConn), nil
	}
	t := tls.Client(c, d.wrap)
	return t, t.Handshake()
}

// pass gives to what from says, and that it has ended.
func pass(to, from halfCloser) {
	if _, err := io.Copy(to, from); err != nil || to.CloseWrite() != nil {
		_, _ = to.Close(), from.Close()
	}
}

// stop ends all connections.
func (d *GossipDoor) stop(error) error {
	err := d.listener.Close()
	d.mu.Lock()
	d.closed = true
	for c := range d.open {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.serving.Wait()
	return err
}
