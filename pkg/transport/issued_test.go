package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// fakeIssuer issues one certificate for one name.
type fakeIssuer struct {
	issued    atomic.Pointer[tls.Certificate]
	expired   atomic.Bool
	challenge *tls.Certificate
}

const issuedName = "metrics.example.com"

func (f *fakeIssuer) Certificate(name string) (*tls.Certificate, bool) {
	if name != issuedName && name != "" {
		return nil, false
	}
	c := f.issued.Load()
	return c, c != nil && !f.expired.Load()
}

func (f *fakeIssuer) Challenge(_ context.Context, name string) (*tls.Certificate, error) {
	if name != issuedName {
		return nil, errs.New(errs.NotFound, "no challenge for %s", name)
	}
	return f.challenge, nil
}

func pair(t *testing.T, ca *authority, name string, serial int64) *tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(ca.issue(t, name, serial))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// served starts a server with the issuer and what is of files.
func served(t *testing.T, files TLSConfig, issuer Issuer) string {
	t.Helper()
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.HTTPPort, cfg.GRPCPort, cfg.ShutdownTimeout, cfg.HTTPTLS = 0, 0, 5*time.Second, files
	reg := prometheus.NewRegistry()
	s, err := NewServer(cfg, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet(), Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	s.Handle(hello)
	also, err := s.Also("127.0.0.1", 0, hello)
	if err != nil {
		t.Fatal(err)
	}
	startService(t, s)
	if got := shown(t, also.String(), issuedName); got != shown(t, s.HTTPAddr().String(), issuedName) {
		t.Errorf("the further listener shows certificate %d", got)
	}
	return s.HTTPAddr().String()
}

// shown is the serial number of the certificate that who asks for name is shown; 0: none.
func shown(t *testing.T, addr, name string) int64 {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestWhatIsIssuedIsShownAndFilesWhereThereIsNothing(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, t.TempDir(), "ours")
	const ofFiles, ofCA = 7, 8
	cert, key := ca.issue(t, "files", ofFiles)
	issuer := &fakeIssuer{}
	both := served(t, TLSConfig{CertFile: cert, KeyFile: key}, issuer)
	alone := served(t, TLSConfig{}, issuer)
	check := func(when string, addr, name string, want int64) {
		t.Helper()
		if got := shown(t, addr, name); got != want {
			t.Errorf("%s: %q is shown certificate %d, want %d", when, name, got, want)
		}
	}
	check("nothing issued", both, issuedName, ofFiles)
	check("nothing issued, no files", alone, issuedName, 0)
	issuer.issued.Store(pair(t, ca, "issued", ofCA))
	check("issued", both, issuedName, ofCA)
	check("issued", both, "other.example.com", ofFiles)
	check("issued", both, "", ofFiles)
	check("issued, no files", alone, issuedName, ofCA)
	check("issued, no files", alone, "", ofCA)
	check("issued, no files", alone, "other.example.com", 0)
	issuer.expired.Store(true)
	check("expired", both, issuedName, ofFiles)
	check("expired, no files", alone, issuedName, ofCA) // clients say what is wrong
}

func TestAConnectionForAChallengeCarriesNoRequests(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, t.TempDir(), "ours")
	cert, key := ca.issue(t, "files", 7)
	const ofChallenge = 9
	issuer := &fakeIssuer{challenge: pair(t, ca, "challenge", ofChallenge)}
	// Clients must show certificates, which a CA does not.
	addr := served(t, TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: ca.dir + "/ours-ca.pem"}, issuer)
	dial := func(name string, protocols ...string) (*tls.Conn, error) {
		return tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", addr, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
	}
	request := func(c *tls.Conn) string {
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+issuedName+"\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		return string(b)
	}
	c, err := dial(issuedName, challengeProtocol)
	if err != nil {
		t.Fatalf("the CA cannot connect: %v", err)
	}
	if s := c.ConnectionState(); s.NegotiatedProtocol != challengeProtocol || s.PeerCertificates[0].SerialNumber.Int64() != ofChallenge {
		t.Errorf("the CA sees %q and certificate %s", s.NegotiatedProtocol, s.PeerCertificates[0].SerialNumber)
	}
	if got := request(c); got != "" {
		t.Errorf("who shows no certificate is answered %q", got)
	}
	if c, err := dial("other.example.com", challengeProtocol); err == nil {
		_ = c.Close()
		t.Error("a name without a challenge is answered")
	}
	for _, protocols := range [][]string{{"http/1.1"}, {"http/1.1", challengeProtocol}, {challengeProtocol, "http/1.1"}, nil} {
		if c, err := dial(issuedName, protocols...); err == nil {
			if got := request(c); got != "" {
				t.Errorf("with protocols %v who shows no certificate is answered %q", protocols, got)
			}
		}
	}
}
