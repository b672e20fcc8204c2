package gateway

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// BenchmarkPush is the whole door, with a handler behind that only reads the body.
func BenchmarkPush(b *testing.B) {
	file := filepath.Join(b.TempDir(), "identities.yaml")
	if err := os.WriteFile(file, []byte(accounts), 0o600); err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ids, err := identity.New(b.Context(), identity.Config{File: file, Refresh: time.Minute, Key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}, identity.Deps{Log: log, Reg: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	var cfg Config
	config.NewSet().Mount("auth", &cfg)
	cfg.Enabled = true
	g, err := New(cfg, Deps{Log: log, Reg: prometheus.NewRegistry(), Routes: table1(), Prefix: "/prometheus", Identities: ids, MaxBodyBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	door := g.Before(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	for _, size := range []int{4 << 10, 30 << 10, 256 << 10} {
		body := bytes.Repeat([]byte("x"), size)
		signed := httptest.NewRequest("POST", "/workspaces/ws-1/api/v1/remote_write", http.NoBody)
		signed.Header.Set("Content-Encoding", "snappy")
		if err := (sigv4.Signer{AccessKey: "AKIDWRITER01", Secret: credentials("AKIDWRITER01"), Region: "us-east-1", Service: "aps"}).Sign(signed, body, time.Now()); err != nil {
			b.Fatal(err)
		}
		basic := httptest.NewRequest("POST", "/api/v1/push", http.NoBody)
		basic.Header.Set("X-Scope-OrgID", "ws-1")
		basic.SetBasicAuth("AKIDWRITER01", credentials("AKIDWRITER01"))
		for name, r := range map[string]*http.Request{"signed": signed, "basic": basic} {
			b.Run(name+"/bytes="+strconv.Itoa(size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					try := *r
					try.Header = r.Header.Clone()
					try.Body, try.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(size)
					w := httptest.NewRecorder()
					door.ServeHTTP(w, &try)
					if w.Code != http.StatusOK {
						b.Fatalf("%d %s", w.Code, w.Body)
					}
				}
			})
		}
	}
}
