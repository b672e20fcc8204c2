package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// gossiper stands for the library that gossips: it sends back what it was sent, once that has ended.
type gossiper struct {
	calls atomic.Int64
	bytes atomic.Int64
}

func (g *gossiper) serve(t *testing.T, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				data, _ := io.ReadAll(c)
				g.calls.Add(1)
				g.bytes.Add(int64(len(data)))
				_, _ = c.Write(data)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
}

// doorFor starts a door before a library that speaks TLS if c says so.
func doorFor(t *testing.T, c GossipTLS) (*GossipDoor, *gossiper, *prometheus.Registry) {
	t.Helper()
	s, reg := startServer(t, Config{}, func(*Server) {})
	listen, dial, err := c.Fill(TLSConfig{}, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.NewGossipDoor(c, listen, "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	startService(t, d)
	at := d.Inner()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	if c.Enabled {
		pair, err := tls.LoadX509KeyPair(dial.TLSCert, dial.TLSKey)
		if err != nil {
			t.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	g := &gossiper{}
	g.serve(t, l)
	return d, g, reg
}

// said sends text to a door, by TLS as conf says or plain if it is nil, and returns the answer.
func said(t *testing.T, d *GossipDoor, conf *tls.Config, text string) string {
	t.Helper()
	raw, err := net.DialTimeout("tcp", d.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := raw.(halfCloser)
	if conf != nil {
		c = tls.Client(raw, conf)
	}
	if _, err := io.WriteString(c, text); err != nil || c.CloseWrite() != nil {
		return ""
	}
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// TestOnlyMembersWithACertificateGossip: who has none that is valid reaches nothing of the library, and sees nothing
// of what it says; in a transition members without TLS do, and strangers with a wrong certificate do not.
func TestOnlyMembersWithACertificateGossip(t *testing.T) {
	noLeaks(t)
	dir, elsewhere := t.TempDir(), t.TempDir()
	ca, other := newAuthority(t, dir, "ours"), newAuthority(t, elsewhere, "others")
	cert, key := ca.issue(t, "member", 2)
	foreign, foreignKey := other.issue(t, "member", 2)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	with := func(cert, key string) *tls.Config {
		c := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return c
	}
	old := with(cert, key)
	old.MaxVersion = tls.VersionTLS12
	for _, mode := range []GossipTLS{{Enabled: true}, {Enabled: true, Transition: true}, {Transition: true}} {
		mode.Cert, mode.Key, mode.CA = cert, key, filepath.Join(dir, "ours-ca.pem")
		d, library, reg := doorFor(t, mode)
		calls := 0
		text := "\x01" + strings.Repeat("gossip", 200_000)
		for who, c := range map[string]struct {
			conf *tls.Config
			in   bool
		}{
			"a member":                          {with(cert, key), true},
			"a member by TLS 1.2":               {old, true},
			"somebody without a certificate":    {with("", ""), false},
			"somebody of another authority":     {with(foreign, foreignKey), false},
			"somebody without TLS":              {nil, mode.Transition},
			"somebody without TLS, once more":   {nil, mode.Transition},
			"somebody without certificate, too": {with("", ""), false},
		} {
			got := said(t, d, c.conf, text)
			if c.in {
				calls++
			}
			if c.in && got != text || !c.in && got != "" {
				t.Errorf("%+v: %s got %d bytes, want to be in: %t", mode, who, len(got), c.in)
			}
		}
		if got := library.calls.Load(); got != int64(calls) {
			t.Errorf("%+v: the library had %d calls, want %d", mode, got, calls)
		}
		eventually(t, "connections and refusals are counted", func() bool {
			return counter(t, reg, "amphora_gossip_connections_total") == float64(calls) && counter(t, reg, "amphora_gossip_connections_refused_total") == float64(7-calls)
		})
	}
}

// TestWhatAMemberSaysLastArrives: members send and close at once, without a look at what comes back.
func TestWhatAMemberSaysLastArrives(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "member", 2)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	d, library, _ := doorFor(t, GossipTLS{Enabled: true, Cert: cert, Key: key, CA: filepath.Join(dir, "ours-ca.pem")})
	message := bytes.Repeat([]byte{1}, 3<<20)
	const times = 20
	for range times {
		c, err := tls.Dial("tcp", d.Addr().String(), &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	eventually(t, "all has arrived", func() bool { return library.calls.Load() == times && library.bytes.Load() == times*int64(len(message)) })
}

// TestAClosedDoorHoldsNobody: who is connected, or says nothing, does not keep it open.
func TestAClosedDoorHoldsNobody(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	cert, key := newAuthority(t, dir, "ours").issue(t, "member", 2)
	s, _ := startServer(t, Config{}, func(*Server) {})
	c := GossipTLS{Transition: true, Cert: cert, Key: key, CA: filepath.Join(dir, "ours-ca.pem")}
	listen, _, err := c.Fill(TLSConfig{}, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.NewGossipDoor(c, listen, "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if err := d.stop(nil); err != nil {
		t.Error(err)
	}
	_ = silent.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("it is open still")
	} else if e, ok := err.(net.Error); ok && e.Timeout() { //nolint:errorlint // It is of the connection itself.
		t.Error(err)
	}
}

// TestCertificatesOfGossipAreThoseOfCallsUnlessSaid: what is missing is said, and what is set here counts.
func TestCertificatesOfGossipAreThoseOfCallsUnlessSaid(t *testing.T) {
	server := TLSConfig{CertFile: "s.pem", KeyFile: "s.key", ClientCAFile: "ca.pem"}
	client := ClientConfig{TLSCert: "c.pem", TLSKey: "c.key", TLSCA: "ca.pem", TLSName: "amphora"}
	own := GossipTLS{Enabled: true, Cert: "g.pem", Key: "g.key", CA: "g-ca.pem"}
	if l, d, err := (&GossipTLS{Enabled: true}).Fill(server, client); err != nil || l != server || d.TLSCert != "c.pem" || d.TLSName != "amphora" {
		t.Errorf("those of calls: %+v, %+v, %v", l, d, err)
	}
	if l, d, err := own.Fill(server, client); err != nil || l != (TLSConfig{CertFile: "g.pem", KeyFile: "g.key", ClientCAFile: "g-ca.pem"}) || d.TLSCA != "g-ca.pem" || d.TLSName != "amphora" {
		t.Errorf("its own: %+v, %+v, %v", l, d, err)
	}
	lax := server
	lax.ClientAuth = verifyIfGiven
	for what, c := range map[string]struct {
		server TLSConfig
		client ClientConfig
	}{"nothing": {}, "no client": {server, ClientConfig{}}, "no server": {TLSConfig{}, client}, "a server that takes anybody": {lax, client}} {
		if _, _, err := (&GossipTLS{Enabled: true}).Fill(c.server, c.client); err == nil || !strings.Contains(err.Error(), "memberlist.tls_cert_path") {
			t.Errorf("%s: %v, want what is needed", what, err)
		}
	}
	for _, args := range [][]string{{"-memberlist.tls-cert-path=a"}, {"-memberlist.tls-cert-path=a", "-memberlist.tls-key-path=b"}, {"-memberlist.tls-min-version=VersionTLS11"}} {
		set := config.NewSet()
		set.Mount("memberlist", &GossipTLS{})
		if _, err := config.Load(set, args, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "memberlist.tls") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
