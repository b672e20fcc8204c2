package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// shownFiles are the files that the processes of a cluster show each other and check each other by.
type shownFiles struct {
	t          *testing.T
	pair, root string
}

// flags has a cluster speak TLS only. Certificate and key are in one file, so that they change at once.
func (c *shownFiles) flags() []string {
	return []string{"-server.grpc-tls-cert-path=" + c.pair, "-server.grpc-tls-key-path=" + c.pair, "-server.grpc-tls-ca-path=" + c.root,
		"-ingester.client.tls-enabled=true", "-ingester.client.tls-cert-path=" + c.pair, "-ingester.client.tls-key-path=" + c.pair, "-ingester.client.tls-ca-path=" + c.root}
}

func (c *shownFiles) replace(path string, data []byte) {
	c.t.Helper()
	must(c.t, errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)))
}

// show replaces the certificate by one of a that is valid until then.
func (c *shownFiles) show(a *authority, serial int64, until time.Time) {
	c.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(c.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "amphora"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, &own.PublicKey, a.key)
	must(c.t, err)
	text, err := x509.MarshalPKCS8PrivateKey(own)
	must(c.t, err)
	c.replace(c.pair, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})...))
}

// believe replaces the authorities that are believed.
func (c *shownFiles) believe(authorities ...*authority) {
	c.t.Helper()
	var all []byte
	for _, a := range authorities {
		data, err := os.ReadFile(filepath.Join(a.dir, "ca.pem"))
		must(c.t, err)
		all = append(all, data...)
	}
	c.replace(c.root, all)
}

// within polls for what a busy machine may take long for.
func within(ctx context.Context, t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := harness.Poll(ctx, func(context.Context) error { return ok() }); err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}

// stores waits until n takes samples, which only a process that it believes can bring.
func stores(ctx context.Context, t *testing.T, n *harness.Node) {
	t.Helper()
	before := -1.0
	within(ctx, t, n.Spec.Name+" takes samples", func() error {
		now := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_ingested_samples_total", "user", "team-a")
		if before < 0 {
			before = now
		}
		if now <= before {
			return fmt.Errorf("%g samples, as before", now)
		}
		return nil
	})
}

// TestCertificatesAreReplacedUnderLoad replaces the certificates of a cluster by those of another
// authority while it is written to and read, and then those of one ingester by one that has expired.
func TestCertificatesAreReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 5*time.Minute)
	dir := t.TempDir()
	old, next := newAuthority(t), newAuthority(t)
	c := &shownFiles{t: t, pair: filepath.Join(dir, "pair.pem"), root: filepath.Join(dir, "root.pem")}
	c.believe(old, next)
	c.show(old, 2, time.Now().Add(time.Hour))
	cl, j, end := scaled(ctx, t, c.flags()...)
	pause(ctx, t, time.Second)
	c.show(next, 3, time.Now().Add(time.Hour))
	for _, n := range cl.Of("ingester") { // connections are made anew
		must(t, errors.Join(n.Restart(), n.WaitReady(ctx)))
		settled(ctx, t, cl.Nodes(), "ingester-a", "ingester-b", "ingester-c")
		stores(ctx, t, n)
	}
	c.believe(next)
	last := cl.Node("ingester-c") // whose callers are to show what the new authority has given
	must(t, errors.Join(last.Restart(), last.WaitReady(ctx)))
	settled(ctx, t, cl.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	stores(ctx, t, last)

	must(t, last.Process.Stop())
	c.show(next, 4, time.Now().Add(-time.Minute))
	must(t, errors.Join(last.Start(), last.WaitReady(ctx)))
	within(ctx, t, "it is said that a certificate has expired", func() error {
		for _, n := range cl.Of("distributor") {
			data, err := os.ReadFile(n.LogFile)
			if err == nil && strings.Contains(string(data), "expired") {
				return nil
			}
		}
		return errors.New("no distributor says so")
	})
	c.show(next, 5, time.Now().Add(time.Hour))
	stores(ctx, t, last)
	pause(ctx, t, time.Second)
	a := end()
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s; %d reads, %d failed", acked, given, j.gap(), a.reads, a.failed)
	a.good(t)
	if given > 0 || acked == 0 {
		t.Errorf("%d samples acknowledged, %d given up", acked, given)
	}
	for _, q := range cl.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}
