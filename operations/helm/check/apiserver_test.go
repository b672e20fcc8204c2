package check

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// token is what callers of the servers of these tests show; they listen on loopback and end with the test.
const token = "of-a-test"

// readyWait bounds how long a server may take to start.
const readyWait = 3 * time.Minute

// server is an API server of Kubernetes with an etcd of its own. Nothing runs pods.
type server struct {
	url        string
	kubeconfig string
	client     *http.Client
	kinds      map[string]string // path of a kind's objects in the namespace %s, by apiVersion and kind
}

// startServer starts the programs that `make helm-install` names.
func startServer(t *testing.T) *server {
	t.Helper()
	apiserver, etcd := os.Getenv("APISERVER"), os.Getenv("ETCD")
	if apiserver == "" || etcd == "" {
		t.Skip("SKIPPED: make helm-install builds an API server, which APISERVER and ETCD name")
	}
	dir := t.TempDir()
	ports := freePorts(t, 3)
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	run(t, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)

	s := &server{
		url:    fmt.Sprintf("https://127.0.0.1:%d", ports[2]),
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
		kinds:  map[string]string{},
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := write("serviceaccount.key", newKey(t))
	gone := run(t, apiserver, "--etcd-servers="+client, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[2]), "--cert-dir="+filepath.Join(dir, "certs"),
		"--token-auth-file="+write("tokens.csv", token+`,operator,1,"system:masters"`+"\n"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--disable-admission-plugins=ServiceAccount", // which waits for accounts that a controller makes
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none")
	s.kubeconfig = write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: test, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
`, s.url, token))
	s.awaitReady(t, gone)
	s.learnKinds(t)
	return s
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// run starts a program that ends with the test. The channel is closed when it ends.
func run(t *testing.T, path string, args ...string) <-chan struct{} {
	t.Helper()
	logs, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Dir(logs.Name()), logs, logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(gone)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-gone
		if text, err := os.ReadFile(logs.Name()); err == nil && t.Failed() {
			t.Logf("log of %s ends:\n%s", filepath.Base(path), text[max(0, len(text)-3000):])
		}
		_ = logs.Close()
	})
	return gone
}

func (s *server) awaitReady(t *testing.T, gone <-chan struct{}) {
	t.Helper()
	deadline := time.After(readyWait)
	for {
		a, err := s.do(http.MethodGet, "/readyz", nil)
		if err == nil && a.status == http.StatusOK {
			return
		}
		select {
		case <-gone:
			t.Fatal("the API server has ended")
		case <-deadline:
			t.Fatalf("the API server is not ready: %v %s", err, a.body)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// answer is that of an API server.
type answer struct {
	status   int
	body     []byte
	warnings []string
}

func (s *server) do(method, path string, body []byte) (answer, error) {
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/yaml")
	req.Header.Set("Accept", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return answer{res.StatusCode, text, res.Header.Values("Warning")}, err
}

// get reads what is at path into v.
func (s *server) get(t *testing.T, path string, v any) {
	t.Helper()
	a, err := s.do(http.MethodGet, path, nil)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%s: %v %d %s", path, err, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatal(err)
	}
}

// learnKinds asks which objects there are.
func (s *server) learnKinds(t *testing.T) {
	t.Helper()
	for group, path := range map[string]string{
		"v1": "/api/v1", "apps/v1": "/apis/apps/v1", "policy/v1": "/apis/policy/v1",
		"autoscaling/v2": "/apis/autoscaling/v2", "networking.k8s.io/v1": "/apis/networking.k8s.io/v1",
	} {
		var list struct {
			Resources []struct {
				Name, Kind string
				Namespaced bool
			}
		}
		s.get(t, path, &list)
		for _, r := range list.Resources {
			if r.Namespaced && !strings.Contains(r.Name, "/") {
				s.kinds[group+" "+r.Kind] = path + "/namespaces/%s/" + r.Name
			}
		}
	}
}

// create makes an object of the form of YAML in namespace, strictly, and reads it back.
func (s *server) create(t *testing.T, namespace string, doc []byte) {
	t.Helper()
	head := headOf(t, doc)
	path, ok := s.kinds[head.APIVersion+" "+head.Kind]
	if !ok {
		t.Errorf("the API server knows no %s %s", head.APIVersion, head.Kind)
		return
	}
	path = fmt.Sprintf(path, namespace)
	a, err := s.do(http.MethodPost, path+"?fieldValidation=Strict", doc)
	if err != nil || a.status != http.StatusCreated || len(a.warnings) > 0 {
		t.Errorf("%s %s: %v %d %q\n%s", head.Kind, head.Metadata.Name, err, a.status, a.warnings, a.body)
		return
	}
	s.get(t, path+"/"+head.Metadata.Name, &struct{}{})
}
