package transport

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// TestAnotherListenerServesItsHandlerAlone, and lets requests under way end when the server stops,
// although a client keeps its HTTP/2 connection.
func TestAnotherListenerServesItsHandlerAlone(t *testing.T) {
	noLeaks(t)
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.HTTPPort, cfg.GRPCPort = 0, 0
	reg := prometheus.NewRegistry()
	s, err := NewServer(cfg, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(http.NotFoundHandler())
	started, release := make(chan struct{}), make(chan struct{})
	at, err := s.Also("127.0.0.1", 0, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-release
		}
		_, _ = io.WriteString(w, "hello over "+r.Proto)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	if status, _, body := get(t, client, "http://"+at.String()+"/x"); status != 200 || body != "hello over HTTP/2.0" {
		t.Errorf("%d, %q", status, body)
	}
	if status, _, _ := get(t, client, "http://"+s.HTTPAddr().String()+"/x"); status != 404 {
		t.Errorf("the first listener: %d, want its own handler", status)
	}
	slow := make(chan string)
	go func() {
		res, err := client.Get("http://" + at.String() + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		slow <- string(b)
	}()
	<-started
	s.StopAsync()
	eventually(t, "the listener is closed", func() bool {
		_, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + at.String() + "/x")
		return err != nil
	})
	close(release)
	if got := <-slow; got != "hello over HTTP/2.0" {
		t.Errorf("request under way got %q", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.AwaitTerminated(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestAnotherListenerObeysTheRuleOfExposure(t *testing.T) {
	cfg := Config{HTTPAddress: "127.0.0.1", GRPCAddress: "127.0.0.1", OTLPAddress: "0.0.0.0"}
	if err := CheckExposure(cfg, Exposure{}, false); err == nil || !strings.Contains(err.Error(), "server.otlp_grpc_listen_address") {
		t.Errorf("%v", err)
	}
	if err := CheckExposure(cfg, Exposure{Unsafe: true}, false); err != nil {
		t.Error(err)
	}
}
