package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// token is what callers of the API server of these tests show; it listens on loopback and ends with the test.
const token = "of-a-test"

// apiServer starts the programs that `make operator-test` names. Nothing runs pods.
func apiServer(t *testing.T) *rest.Config {
	t.Helper()
	apiserver, etcd := os.Getenv("APISERVER"), os.Getenv("ETCD")
	if apiserver == "" || etcd == "" {
		t.Skip("SKIPPED: make operator-test builds an API server, which APISERVER and ETCD name")
	}
	dir := t.TempDir()
	ports := freePorts(t, 3)
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	start(t, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	key, _ := certificate(t)
	write(t, dir, "serviceaccount.key", key)
	write(t, dir, "tokens.csv", []byte(token+`,admin,1,"system:masters"`+"\n"))
	start(t, apiserver, "--etcd-servers="+client, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[2]), "--cert-dir="+filepath.Join(dir, "certs"),
		"--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+filepath.Join(dir, "serviceaccount.key"), "--service-account-signing-key-file="+filepath.Join(dir, "serviceaccount.key"),
		"--disable-admission-plugins=ServiceAccount", // which waits for accounts that a controller makes
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none")
	config := &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", ports[2]), BearerToken: token, QPS: 200, Burst: 200,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	eventually(t, "the API server is ready", func() error { return answers(insecure, config.Host+"/readyz") })
	return config
}

// amphora starts the built program, and returns where it is.
func amphora(t *testing.T) string {
	t.Helper()
	path := os.Getenv("AMPHORA")
	if path == "" {
		t.Skip("SKIPPED: make operator-test builds the program, which AMPHORA names")
	}
	dir, ports := t.TempDir(), freePorts(t, 2)
	write(t, dir, "amphora.yaml", fmt.Appendf(nil, "server: {http_listen_address: 127.0.0.1, http_listen_port: %d, grpc_listen_port: %d}\nblocks_storage: {backend: filesystem}\n", ports[0], ports[1]))
	start(t, path, "-config.file="+filepath.Join(dir, "amphora.yaml"))
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	eventually(t, "the cluster is ready", func() error { return answers(http.DefaultClient, url+"/ready") })
	return url
}

func answers(c *http.Client, url string) error {
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // nothing of it counts
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %d", url, res.StatusCode)
	}
	return nil
}

// start starts a program that ends with the test.
func start(t *testing.T, path string, args ...string) {
	t.Helper()
	logs, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Dir(logs.Name()), logs, logs
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		if text, err := os.ReadFile(logs.Name()); err == nil && t.Failed() {
			t.Logf("log of %s ends:\n%s", filepath.Base(path), text[max(0, len(text)-3000):])
		}
		_ = logs.Close()
	})
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// certificate returns a key and a certificate of it for 127.0.0.1, which is its own CA.
func certificate(t *testing.T) (key, cert []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(private)
	must(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	signed, err := x509.CreateCertificate(rand.Reader, of, of, &private.PublicKey, private)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what has no other sign than that it is so.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
