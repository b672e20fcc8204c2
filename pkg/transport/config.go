package transport

import (
	"cmp"
	"net"
	"net/netip"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Config is where and how the process listens; app mounts it as server. Names are Mimir's.
type Config struct {
	HTTPAddress     string
	HTTPPort        int
	HTTPConnLimit   int
	HTTPTLS         TLSConfig
	HTTPProbes      bool      // see probeRows
	TLS             TLSPolicy // of all listeners
	ProxyProtocol   bool
	ProxyNetworks   []string
	ReadTimeout     time.Duration
	WriteTimeout    time.Duration
	GRPCAddress     string
	GRPCPort        int
	GRPCTLS         TLSConfig
	OTLPAddress     string // empty: no such listener
	OTLPPort        int
	ShutdownTimeout time.Duration
	Cluster         ClusterServer
	Sources         SourceConfig
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.HTTPAddress, "http-listen-address", "127.0.0.1", "Address of the HTTP listener. Addresses that other machines can reach need authentication.")
	s.Int(&c.HTTPPort, "http-listen-port", 8080, "Port of the HTTP listener. 0: any free one.")
	s.Int(&c.HTTPConnLimit, "http-listen-conn-limit", 16384, "HTTP connections open at once; more wait to be accepted. 0: no limit.").Named("server.http-conn-limit").Expert()
	s.Duration(&c.ReadTimeout, "http-server-read-timeout", 30*time.Second, "Time a client has to send a request with its body.").Named("server.http-read-timeout").Expert()
	s.Duration(&c.WriteTimeout, "http-server-write-timeout", 2*time.Minute, "Time that a response may take to be sent, from its beginning.").Named("server.http-write-timeout").Expert()
	s.Bool(&c.ProxyProtocol, "proxy-protocol-enabled", false, "Whether to read the client address from a PROXY protocol header that load balancers send first on a connection. Connections without one are accepted, too.").Expert()
	s.Strings(&c.ProxyNetworks, "proxy-protocol-networks", nil, "Networks, such as 10.0.0.0/8, of the load balancers whose PROXY headers are trusted.").Expert()
	s.Mount("", &c.TLS)
	s.Mount("http_tls_config", &tlsRows{&c.HTTPTLS, "server.http-tls-"})
	s.Mount("http_tls_config", &probeRows{c})
	s.String(&c.GRPCAddress, "grpc-listen-address", "127.0.0.1", "Address of the gRPC listener for other processes of the cluster.")
	s.Int(&c.GRPCPort, "grpc-listen-port", 9095, "Port of the gRPC listener. 0: any free one.")
	s.Mount("grpc_tls_config", &tlsRows{&c.GRPCTLS, "server.grpc-tls-"})
	s.String(&c.OTLPAddress, "otlp-grpc-listen-address", "", "Address of a separate listener for OTLP over gRPC, with the TLS of the HTTP listener. Empty: none; the HTTP listener accepts it, too.")
	s.Int(&c.OTLPPort, "otlp-grpc-listen-port", 4317, "Port of the listener for OTLP over gRPC. 0: any free one.").Expert()
	s.Duration(&c.ShutdownTimeout, "graceful-shutdown-timeout", 30*time.Second, "Time that requests under way have to finish when the process stops.").Expert()
	s.Mount("cluster_validation", &c.Cluster)
	s.Mount("", &c.Sources)
}

// Validate is part of config.Validator.
func (c *Config) Validate() error {
	const most = 1<<16 - 1
	for _, p := range []struct {
		key  string
		port int
	}{{"http_listen_port", c.HTTPPort}, {"grpc_listen_port", c.GRPCPort}, {"otlp_grpc_listen_port", c.OTLPPort}} {
		if p.port < 0 || p.port > most {
			return config.Wrong(p.key, "is %d; a port is a number from 0 to %d", p.port, most)
		}
	}
	return nil
}

// TLSConfig names the files of one listener's TLS. They are read again when they change.
type TLSConfig struct {
	CertFile     string // empty: no TLS
	KeyFile      string
	ClientCAFile string // empty: clients show no certificate
	ClientAuth   string // see Declare; empty with ClientCAFile: required
}

type tlsRows struct {
	c     *TLSConfig
	flags string
}

// Declare implements config.Declarer.
func (r *tlsRows) Declare(s *config.Set) {
	s.String(&r.c.CertFile, "cert-file", "", "Server certificate, which turns TLS on.").Named(r.flags + "cert-path")
	s.String(&r.c.KeyFile, "key-file", "", "Key of the server certificate.").Named(r.flags + "key-path")
	s.String(&r.c.ClientCAFile, "client-ca-file", "", "CA certificates that clients' certificates are checked against.").Named(r.flags + "ca-path")
	s.String(&r.c.ClientAuth, "client-auth-type", "", "RequireAndVerifyClientCert, the default when a client CA is given, or VerifyClientCertIfGiven.").Named(r.flags + "client-auth").Expert()
}

// probeRows declare what only the HTTP listener has.
type probeRows struct{ c *Config }

// Declare implements config.Declarer.
func (r *probeRows) Declare(s *config.Set) {
	s.Bool(&r.c.HTTPProbes, "probes-without-certificate", false, "Answer /ready, /-/ready and /-/healthy to clients without a certificate, too, such as probes of Kubernetes. Everything else is then refused with 403 instead of in the handshake.").Named("server.http-tls-probes-without-certificate").Expert()
}

// Validate implements config.Validator.
func (r *probeRows) Validate() error {
	if r.c.HTTPProbes && !r.c.HTTPTLS.authenticates() {
		return config.Wrong("probes_without_certificate", "needs client_ca_file, and client_auth_type %s: otherwise no client must show a certificate", requireClient)
	}
	return nil
}

// authenticates says whether no client without a valid certificate gets through.
func (c *TLSConfig) authenticates() bool {
	return c.CertFile != "" && c.ClientCAFile != "" && c.ClientAuth != verifyIfGiven
}

// Exposure is the setting that lifts the rule of CheckExposure; app mounts it as auth.
type Exposure struct{ Unsafe bool }

// Declare implements config.Declarer.
func (e *Exposure) Declare(s *config.Set) {
	s.Bool(&e.Unsafe, "unsafe-listen-without-authentication", false,
		"Listen on addresses that other machines can reach although nothing authenticates callers: anybody there can read, write and delete every tenant's data.")
}

// CheckExposure refuses to listen where other machines can reach while nothing authenticates
// callers: neither authentication (authEnabled), which is that of clients over HTTP, nor client
// certificates that the listener requires. Errors: Invalid, with the remedy.
func CheckExposure(cfg Config, exposure Exposure, authEnabled bool) error {
	if exposure.Unsafe {
		return nil
	}
	for _, l := range []struct {
		setting, address string
		tls              *TLSConfig
		authenticated    bool
	}{
		{"server.http_listen_address", cfg.HTTPAddress, &cfg.HTTPTLS, authEnabled},
		{"server.grpc_listen_address", cfg.GRPCAddress, &cfg.GRPCTLS, false},
		{"server.otlp_grpc_listen_address", cmp.Or(cfg.OTLPAddress, "127.0.0.1"), &cfg.HTTPTLS, authEnabled},
	} {
		if !l.authenticated && !Loopback(l.address) && !l.tls.authenticates() {
			return errs.New(errs.Invalid, "%s is %q, which other machines can reach, but nothing authenticates callers: turn authentication on (auth.enabled, for listeners of clients), "+
				"set it to 127.0.0.1, require client certificates, or accept that anybody can use every tenant's data "+
				"with auth.unsafe_listen_without_authentication (-auth.unsafe-listen-without-authentication)", l.setting, l.address)
		}
	}
	return nil
}

// Loopback says whether address leads to this machine only. A name must be localhost and resolve
// to loopback addresses alone; an empty address is every interface.
func Loopback(address string) bool {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Unmap().IsLoopback()
	}
	if address != "localhost" {
		return false
	}
	ips, err := net.LookupIP(address)
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return false
		}
	}
	return err == nil && len(ips) > 0
}
