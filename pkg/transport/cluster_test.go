package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/dskit/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	pb "github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	atServer = "amphora_server_invalid_cluster_validation_label_requests_total"
	atClient = "amphora_client_invalid_cluster_validation_label_requests_total"
)

// callsOf pushes by a stream, calls and queries by a stream, as a process with the label; it returns
// what came of each, and the process's metrics.
func callsOf(t *testing.T, addr, label string) (pushed frame.Result, reg *prometheus.Registry, called, queried error) {
	t.Helper()
	cfg := ClientConfig{Cluster: ClusterClient{Label: label}}
	reg = prometheus.NewRegistry()
	replicas, err := NewReplicas(cfg, ClientDeps{PushTimeout: 30 * time.Second, Registerer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	startService(t, replicas)
	clients, err := NewClients(cfg, ClientDeps{Registerer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	startService(t, clients)
	pushed = push(replicaFor(t, replicas, addr), scrape(0, 1, true))
	c, err := clients.For(addr)
	if err != nil {
		t.Fatal(err)
	}
	_, called = c.LabelNames(t.Context(), &pb.LabelNamesRequest{})
	s, err := c.Query(t.Context(), &pb.QueryRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return pushed, reg, called, err
}

func TestCallsOfAnotherClusterAreRefusedStreamsToo(t *testing.T) {
	noLeaks(t)
	serve := func(soft bool) (*Server, *prometheus.Registry) {
		check := ClusterCheck{Enabled: true, Soft: soft}
		return startServer(t, Config{Cluster: ClusterServer{Label: "here", Additional: []string{"formerly"}, GRPC: check}}, func(s *Server) {
			w := NewIngesterWrite(&memoryServer{}, prometheus.NewRegistry(), quiet())
			pb.RegisterIngesterWriteServer(s.GRPC(), w)
			pb.RegisterIngesterQueryServer(s.GRPC(), &queries{
				stream: func(grpc.ServerStreamingServer[pb.QueryResponse]) error { return nil },
				names:  func(context.Context) (*pb.LabelNamesResponse, error) { return &pb.LabelNamesResponse{}, nil },
			})
			s.OnDrain(w.Drain)
		})
	}
	strict, strictReg := serve(false)
	soft, softReg := serve(true)
	for _, label := range []string{"here", "formerly"} {
		pushed, caller, called, queried := callsOf(t, strict.GRPCAddr().String(), label)
		if n := counter(t, caller, atClient); pushed.Outcome != frame.Stored || called != nil || queried != nil || n != 0 {
			t.Errorf("calls of cluster %s: %+v, %v, %v, %g refused", label, pushed, called, queried, n)
		}
	}
	if n := counter(t, strictReg, atServer); n != 0 {
		t.Errorf("%g calls of this cluster are counted as of another", n)
	}
	for _, label := range []string{"there", ""} {
		pushed, caller, called, queried := callsOf(t, strict.GRPCAddr().String(), label)
		if pushed.Outcome != frame.Failed || called == nil || queried == nil {
			t.Errorf("calls of cluster %q: %+v, %v, %v", label, pushed, called, queried)
		}
		if label == "" {
			continue
		}
		// Another replica may be of this cluster, so the caller is to go on.
		if errs.KindOf(called) != errs.Unavailable || errs.KindOf(queried) != errs.Unavailable || !strings.Contains(called.Error(), `wrong cluster validation label "there"`) {
			t.Errorf("told as %v and %v", called, queried)
		}
		eventually(t, "the caller counts each of the three", func() bool { return counter(t, caller, atClient) >= 3 })
	}
	if n := counter(t, strictReg, atServer); n < 6 {
		t.Errorf("%g calls are counted as of another cluster, want 6 or more", n)
	}
	for _, label := range []string{"there", ""} {
		if pushed, _, called, queried := callsOf(t, soft.GRPCAddr().String(), label); pushed.Outcome != frame.Stored || called != nil || queried != nil {
			t.Errorf("soft validation refuses calls of cluster %q: %+v, %v, %v", label, pushed, called, queried)
		}
	}
	if n := counter(t, softReg, atServer); n < 6 {
		t.Errorf("soft validation counts %g calls of another cluster, want 6 or more", n)
	}
}

func TestRequestsOfAnotherClusterAreRefusedBeforeTheHandler(t *testing.T) {
	noLeaks(t)
	var served atomic.Int64
	s, reg := startServer(t, Config{Cluster: ClusterServer{Label: "here", HTTP: ClusterHTTP{ClusterCheck: ClusterCheck{Enabled: true}, Paths: []string{"/open", "api/v1/push"}, UserAgents: []string{"^Grafana/"}}}},
		func(s *Server) {
			s.Handle(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
		})
	for _, c := range []struct {
		path, label, agent string
		want               int
	}{
		{"/api/v1/query", "here", "", 200}, {"/api/v1/query", "there", "", 511}, {"/api/v1/query", "", "", 511}, {"/api/v1/query", "", "Grafana/12", 200},
		{"/api/v1/query", "", "not Grafana/12", 511}, {"/ready", "", "", 200}, {"/metrics", "there", "", 200}, {"/debug/pprof/heap", "", "", 200}, {"/open", "", "", 200}, {"/open/below", "", "", 200},
		{"/api/v1/push", "", "", 200}, {"/openly", "", "", 511}, {"/x/ready", "", "", 511}, {"/readyness", "", "", 511}, {"/", "", "", 511},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.HTTPAddr().String()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", c.agent)
		if c.label != "" {
			r.Header.Set("X-Cluster", c.label)
		}
		before := served.Load()
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.want || (served.Load() > before) != (c.want == 200) || c.want == 511 && !strings.Contains(string(body), "cluster_validation_error_message") {
			t.Errorf("%s of cluster %q by %q: %d %s", c.path, c.label, c.agent, resp.StatusCode, body)
		}
	}
	if n := counter(t, reg, atServer); n != 7 {
		t.Errorf("%g refused requests are counted, want 7", n)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestRequestsToOtherProcessesNameTheClusterOfThisOne(t *testing.T) {
	var seen atomic.Value
	var refuse atomic.Bool
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Values("X-Cluster"))
		if refuse.Load() {
			w.WriteHeader(http.StatusNetworkAuthenticationRequired)
			_, _ = io.WriteString(w, `{"cluster_validation_error_message":"another cluster","route":"/"}`)
		}
	}))
	defer behind.Close()
	reg := prometheus.NewRegistry()
	for label, want := range map[string][]string{"here": {"here"}, "": nil} {
		rt := ClusterClient{Label: label}.Wrapper("peers", reg)(http.DefaultTransport)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, behind.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Add("X-Cluster", "what a client says") // must not get through
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if fmt.Sprint(seen.Load()) != fmt.Sprint(want) || len(r.Header.Values("X-Cluster")) != 1 {
			t.Errorf("with label %q the server sees %v, want %v; the request itself has %v", label, seen.Load(), want, r.Header.Values("X-Cluster"))
		}
	}
	refuse.Store(true)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, behind.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := prometheus.NewRegistry()
	resp, err := ClusterClient{Label: "here"}.Wrapper("peers", own)(http.DefaultTransport).RoundTrip(r)
	if err == nil {
		_ = resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("a refusal is told as %v", err)
	}
	if n := counter(t, own, atClient); n != 1 {
		t.Errorf("%g refusals are counted", n)
	}
}

func TestNamesOfOtherClustersAreBounded(t *testing.T) {
	refused := middleware.NewInvalidClusterRequests(prometheus.NewRegistry(), "amphora")
	d, err := newClusterDoor(ClusterServer{Label: "here", GRPC: ClusterCheck{Enabled: true}}, refused, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if d.check(t.Context(), fmt.Sprint("made up ", i), nil, false, [2]string{"grpc", "m"}) == "" {
			t.Fatal("another cluster is let in")
		}
	}
	if d.check(t.Context(), strings.Repeat("\xff", 1000), nil, false, [2]string{"grpc", "m"}) == "" {
		t.Error("a name that is no text is let in")
	}
	if n := testutil.CollectAndCount(refused); n != foreignLabels+1 {
		t.Errorf("%d names have counters, want %d", n, foreignLabels+1)
	}
}

func TestClusterSettingsThatCheckNothingAreRefused(t *testing.T) {
	on := ClusterCheck{Enabled: true}
	for name, c := range map[string]struct {
		cfg ClusterServer
		ok  bool
	}{
		"nothing": {ClusterServer{}, true}, "a label": {ClusterServer{Label: "a"}, true},
		"checks":                {ClusterServer{Label: "a", GRPC: on, HTTP: ClusterHTTP{ClusterCheck: on}}, true},
		"no label":              {ClusterServer{GRPC: on}, false},
		"no label for HTTP":     {ClusterServer{HTTP: ClusterHTTP{ClusterCheck: on}}, false},
		"soft alone":            {ClusterServer{Label: "a", GRPC: ClusterCheck{Soft: true}}, false},
		"additional alone":      {ClusterServer{Additional: []string{"b"}}, false},
		"no regular expression": {ClusterServer{Label: "a", HTTP: ClusterHTTP{ClusterCheck: on, UserAgents: []string{"("}}}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
