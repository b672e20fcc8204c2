package harness

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
)

// TestPrometheusSendsBothVersionsOfRemoteWrite has a real Prometheus scrape a page and looks at
// what arrives.
func TestPrometheusSendsBothVersionsOfRemoteWrite(t *testing.T) {
	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE amphora_harness_probe counter\namphora_harness_probe 42\n")
	}))
	defer scraped.Close()
	for _, v := range []struct {
		name string
		two  bool
		mark string // of the content type
	}{{"1.0", false, "application/x-protobuf"}, {"2.0", true, "proto=io.prometheus.write.v2.Request"}} {
		t.Run(v.name, func(t *testing.T) {
			arrived := make(chan *http.Request, 1)
			push := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
				if err == nil {
					body, err = snappy.Decode(nil, body)
				}
				if err == nil && bytes.Contains(body, []byte("amphora_harness_probe")) {
					select {
					case arrived <- r:
					default:
					}
				}
				w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "1")
			}))
			defer push.Close()
			p, err := StartPrometheus(within(t, 30*time.Second), TestLog(t), PrometheusOptions{
				Dir: t.TempDir(), Every: 200 * time.Millisecond, Targets: []string{strings.TrimPrefix(scraped.URL, "http://")},
				PushURL: push.URL, Tenant: "team-a", Version2: v.two,
			})
			Need(t, err)
			defer func() {
				if err := p.Stop(); err != nil {
					t.Error(err)
				}
			}()
			select {
			case r := <-arrived:
				if got := r.Header.Get("Content-Type"); !strings.Contains(got, v.mark) {
					t.Errorf("content type %q, want %q in it", got, v.mark)
				}
				if got := r.Header.Get("X-Scope-OrgID"); got != "team-a" {
					t.Errorf("tenant %q, want team-a", got)
				}
			case <-within(t, 20*time.Second).Done():
				t.Fatalf("nothing arrived\n%s", p.Tail())
			}
		})
	}
}
