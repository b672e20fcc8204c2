package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// calls serves the gRPC calls of a and returns a client of them.
func calls(t *testing.T, a *API) pmetricotlp.GRPCClient {
	t.Helper()
	return pmetricotlp.NewGRPCClient(dial(t, serveGRPC(t, a)))
}

func serveGRPC(t *testing.T, a *API) (addr string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(a.OnlyCalls(a))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func export(delta bool) pmetricotlp.ExportRequest {
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	g := ms.AppendEmpty()
	g.SetName("up")
	g.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	if delta {
		d := ms.AppendEmpty()
		d.SetName("d")
		d.SetEmptySum().DataPoints().AppendEmpty().SetIntValue(1)
	}
	return pmetricotlp.NewExportRequestFromMetrics(md)
}

func as(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", id)
}

func TestGRPCClientsAreAnswered(t *testing.T) {
	f := &fakes{}
	deps := everything(t, f)
	a := newAPI(t, defaults(t), deps)
	client := calls(t, a)
	for name, opts := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor(gzip.Name)}} {
		f.tenant = ""
		out, err := client.Export(as(t.Context(), "t1"), export(false), opts...)
		if err != nil || out.PartialSuccess().RejectedDataPoints() != 0 || f.tenant != "t1" {
			t.Errorf("%s: %v, tenant %q", name, err, f.tenant)
		}
	}
	out, err := client.Export(as(t.Context(), "t1"), export(true))
	if p := out.PartialSuccess(); err != nil || p.RejectedDataPoints() != 1 || !strings.Contains(p.ErrorMessage(), "temporality") {
		t.Errorf("partial: %v, %d rejected, %s", err, p.RejectedDataPoints(), p.ErrorMessage())
	}
	if n := testutil.CollectAndCount(a.metrics.duration); n != 1 {
		t.Errorf("%d series of durations, want one: route otlp_v1_metrics, status 200", n)
	}
}

func TestGRPCErrorsSayWhetherToSendAgain(t *testing.T) {
	f := &fakes{}
	client := calls(t, newAPI(t, defaults(t), everything(t, f)))
	for _, c := range []struct {
		err   error
		code  codes.Code
		again bool
	}{
		{errs.New(errs.Invalid, "bad sample: 100 %%\n"), codes.InvalidArgument, false},
		{errs.New(errs.RateLimited, "too fast"), codes.ResourceExhausted, true},
		{errs.New(errs.BodyTooLarge, "too large"), codes.ResourceExhausted, false},
		{errs.New(errs.Unavailable, "no quorum"), codes.Unavailable, true},
		{errs.New(errs.Internal, "bug"), codes.Unavailable, true},
		{errs.New(errs.Timeout, "slow"), codes.DeadlineExceeded, true},
		{errs.New(errs.Accepted, "another replica is in charge"), codes.OK, false},
	} {
		f.push = func(context.Context) error { return c.err }
		_, err := client.Export(as(t.Context(), "t1"), export(false))
		s := status.Convert(err)
		if s.Code() != c.code || c.code != codes.OK && !strings.Contains(s.Message(), c.err.Error()) {
			t.Errorf("%v: %v", c.err, err)
		}
		again := false
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() >= time.Second {
				again = true
			}
		}
		if again != c.again {
			t.Errorf("%v: retry info %v", c.err, s.Details())
		}
	}
}

func TestGRPCCallsAreCheckedLikeRequests(t *testing.T) {
	f := &fakes{}
	deps := everything(t, f)
	deps.Allow = func(r *http.Request, action Action) error {
		if id, _ := tenant.FromContext(r.Context()); action != RemoteWrite || id == "forbidden" {
			return errs.New(errs.Denied, "no")
		}
		return nil
	}
	cfg := defaults(t)
	cfg.Ingest.Protocols.MaxOTLPBytes = 1 << 10
	a := newAPI(t, cfg, deps)
	addr := serveGRPC(t, a)
	client := pmetricotlp.NewGRPCClient(dial(t, addr))
	for want, ctx := range map[codes.Code]context.Context{
		codes.Unauthenticated:    t.Context(),
		codes.InvalidArgument:    as(t.Context(), "no/slash"),
		codes.PermissionDenied:   as(t.Context(), "forbidden"),
		codes.FailedPrecondition: as(t.Context(), "a|b"),
	} {
		if _, err := client.Export(ctx, export(false)); status.Code(err) != want {
			t.Errorf("want %v: %v", want, err)
		}
	}
	large := export(false)
	large.Metrics().ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).SetDescription(strings.Repeat("x", 2<<10))
	_, err := client.Export(as(t.Context(), "t1"), large)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "(err-amphora-distributor-max-otlp-request-size)") {
		t.Errorf("large: %v", err)
	}
	if _, err = client.Export(as(t.Context(), "t1"), large, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("large when unpacked: %v", err)
	}
	if _, err := healthpb.NewHealthClient(dial(t, addr)).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown service: %v", err)
	}
	if body := plainGet(t, "http://"+addr+"/config"); body != "" {
		t.Errorf("the listener shows pages: %q", body)
	}
}

func TestMalformedGRPCIsRefused(t *testing.T) {
	a := newAPI(t, defaults(t), everything(t, &fakes{}))
	addr := serveGRPC(t, a)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	post := func(body []byte, header ...string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("X-Scope-OrgID", "t1")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res
	}
	for name, c := range map[string]struct {
		body   []byte
		header []string
		want   string
	}{
		"good":            {[]byte{0, 0, 0, 0, 0}, nil, "0"},
		"no head":         {nil, nil, "3"},
		"short":           {[]byte{0, 0, 0, 0, 9, 1}, nil, "3"},
		"two messages":    {[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil, "3"},
		"packed somehow":  {[]byte{1, 0, 0, 0, 0}, nil, "3"},
		"packed by br":    {[]byte{1, 0, 0, 0, 0}, []string{"Grpc-Encoding", "br"}, "12"},
		"not gzip":        {[]byte{1, 0, 0, 0, 1, 7}, []string{"Grpc-Encoding", "gzip"}, "3"},
		"unused encoding": {[]byte{0, 0, 0, 0, 0}, []string{"Grpc-Encoding", "br"}, "0"},
		"odd flag":        {[]byte{2, 0, 0, 0, 0}, nil, "3"},
		"odd timeout":     {[]byte{0, 0, 0, 0, 0}, []string{"Grpc-Timeout", "soon"}, "3"},
		"long timeout":    {[]byte{0, 0, 0, 0, 0}, []string{"Grpc-Timeout", "99999999H"}, "0"},
		"no time":         {[]byte{0, 0, 0, 0, 0}, []string{"Grpc-Timeout", "0n"}, "0"},
	} {
		if res := post(c.body, c.header...); res.StatusCode != 200 || res.Trailer.Get("Grpc-Status") != c.want {
			t.Errorf("%s: %d, %v", name, res.StatusCode, res.Trailer)
		}
	}
	if res := post(nil, "Content-Type", "text/plain"); res.StatusCode != 415 {
		t.Errorf("no gRPC: %d", res.StatusCode)
	}
}

// TestGRPCCallsAreDrained: a call under way ends well, a new one is sent elsewhere.
func TestGRPCCallsAreDrained(t *testing.T) {
	f := &fakes{}
	in, out := make(chan struct{}), make(chan struct{})
	f.push = func(context.Context) error { close(in); <-out; return nil }
	a := newAPI(t, defaults(t), everything(t, f))
	client := calls(t, a)
	first := make(chan error)
	go func() {
		_, err := client.Export(as(context.Background(), "t1"), export(false))
		first <- err
	}()
	<-in
	drained := make(chan error)
	go func() { drained <- a.Drain(context.Background()) }()
	for a.drain.enter() == nil { // until the drain has begun
		a.drain.leave()
	}
	if _, err := client.Export(as(t.Context(), "t1"), export(false)); status.Code(err) != codes.Unavailable {
		t.Errorf("while draining: %v", err)
	}
	close(out)
	if err := <-first; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestTheClientsDeadlineCounts(t *testing.T) {
	f := &fakes{push: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }}
	client := calls(t, newAPI(t, defaults(t), everything(t, f)))
	ctx, cancel := context.WithTimeout(as(t.Context(), "t1"), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Export(ctx, export(false)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
}

func plainGet(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}
