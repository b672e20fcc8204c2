package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/certs/acmetest"
)

// leadingTo listens for who connects, whom it leads to the address that it is told later.
func leadingTo(ctx context.Context, t *testing.T) (at string, to chan<- string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	target, known := "", make(chan struct{})
	told := make(chan string, 1)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		select {
		case target = <-told:
			close(known)
		case <-ctx.Done():
		}
	})
	pass := func(in net.Conn) {
		defer func() { _ = in.Close() }()
		select {
		case <-known:
		case <-ctx.Done():
			return
		}
		out, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
		if err != nil {
			return
		}
		end := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
		defer end()
		back := make(chan struct{})
		go func() { _, _ = io.Copy(in, out); _ = in.Close(); close(back) }()
		_, _ = io.Copy(out, in)
		_ = out.Close()
		<-back
	}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pass(in) })
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	return l.Addr().String(), told
}

// TestACertificateComesFromACA runs the binary against a CA that speaks ACME and checks who answers: what it
// issues is shown, also after a restart without the CA, and for other names the files are.
func TestACertificateComesFromACA(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	const host = "metrics.example.com"
	ca, own := acmetest.New(t), newAuthority(t)
	front, to := leadingTo(ctx, t)
	ca.At(host, front)
	cert, key := own.issue("server", "localhost", 10)
	credential := filepath.Join(t.TempDir(), "root-credential")
	c, err := harness.NewCluster(ctx, harness.Options{Binary: binary(ctx, t), Dir: t.TempDir(), Log: harness.TestLog(t), Files: true, Nodes: harness.OneProcess(), Replicas: 1,
		Flags: append(busyFlags(), "-auth.enabled", "-auth.root-credential-file="+credential, "-server.http-tls-cert-path="+cert, "-server.http-tls-key-path="+key,
			"-server.acme.hosts="+host, "-server.acme.accept-terms-of-service=true", "-server.acme.directory-url="+ca.URL(), "-server.acme.ca-file="+ca.File)})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log ends:\n%s", c.Nodes()[0].Tail())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	n := c.Nodes()[0]
	addr := strings.TrimPrefix(n.URL(""), "http://")
	to <- addr
	get := func(name string, config *tls.Config) error {
		config.ServerName = name
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: config,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}}}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/ready", http.NoBody)
		must(t, err)
		res, err := client.Do(r)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}
	issued := func() error { return get(host, &tls.Config{RootCAs: ca.Roots}) }
	files := func() error {
		return get("localhost", own.client("", "").Transport.(*http.Transport).TLSClientConfig)
	}
	within(ctx, t, "the files for another name", files)
	within(ctx, t, "a certificate of the CA", issued)
	must(t, files())
	root := rootSigner(t, credential)
	within(ctx, t, "the metrics to tell of it", func() error { // it is shown before it is stored and counted
		_, told := signedGetBy(ctx, t, own.client("", ""), "https://"+strings.Replace(addr, "127.0.0.1", "localhost", 1)+"/metrics", root.AccessKey, root.Secret)
		for _, want := range []string{`amphora_acme_orders_total{outcome="success"} 1`, `amphora_acme_certificate_expiry_timestamp_seconds{host="` + host + `"} `, `amphora_server_tls_certificate_expiry_timestamp_seconds{listener="http"} `} {
			if !strings.Contains(told, want) {
				return errors.New("there is no " + want)
			}
		}
		return nil
	})
	names, got := ca.Orders()
	if got != 1 {
		t.Errorf("%d certificates issued of orders for %v, want 1", got, names)
	}
	ca.Down(true)
	must(t, n.Restart())
	within(ctx, t, "the certificate of before, without the CA", issued)
	if _, again := ca.Orders(); again != got {
		t.Errorf("%d more certificates after a restart", again-got)
	}
}
