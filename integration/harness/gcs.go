package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
)

// GCS is a server of Google Cloud Storage in memory, with a service that gives out tokens for it.
type GCS struct {
	*Process

	Address        string // host:port, plain HTTP; for STORAGE_EMULATOR_HOST
	ServiceAccount string // JSON of a key that the token service accepts
	tokens         *httptest.Server
}

// StartGCS starts a server with the named buckets, and waits at most 30 s until it answers. A server
// returned with an error must be stopped too. Errors: ErrNoTool.
func StartGCS(ctx context.Context, log *slog.Logger, dir string, buckets ...string) (*GCS, error) {
	path, err := Tool("fakegcs")
	if err != nil {
		return nil, err
	}
	ports, err := new(Ports).Free(1)
	if err != nil {
		return nil, err
	}
	g := &GCS{Address: address(ports[0])}
	g.tokens = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"loopback","token_type":"Bearer","expires_in":3600}`))
	}))
	if g.ServiceAccount, err = serviceAccount(g.tokens.URL); err != nil {
		return g, err
	}
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		return g, err
	}
	g.Process = NewProcess(log, Command{Name: "gcs", Path: path, LogFile: filepath.Join(dir, "log"),
		Args: []string{"-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", g.Address, "-external-url", "http://" + g.Address}})
	if err := g.Start(); err != nil {
		return g, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, b := range buckets {
		if err := g.until(ctx, "make bucket "+b, func(ctx context.Context) error { return g.makeBucket(ctx, b) }); err != nil {
			return g, err
		}
	}
	return g, nil
}

// Stop ends the server and the token service.
func (g *GCS) Stop() error {
	g.tokens.Close()
	if g.Process == nil {
		return nil
	}
	return g.Process.Stop()
}

func (g *GCS) makeBucket(ctx context.Context, name string) error {
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.Address+"/storage/v1/b?project=test", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// serviceAccount makes a key of a service account whose tokens come from url.
func serviceAccount(url string) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	out, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "test", "private_key_id": "1", "client_email": "test@localhost", "client_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": url,
	})
	return string(out), err
}
