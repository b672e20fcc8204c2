package telemetry

import (
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel"
)

func TestBuildInfoFallsBackToTheGoTool(t *testing.T) {
	b := Build{Version: "1.2.3"}
	b.fill(&debug.BuildInfo{Main: debug.Module{Version: "v9"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
	}})
	if b != (Build{Version: "1.2.3", Revision: "abc-modified", Date: "2026-01-02T03:04:05Z"}) {
		t.Errorf("got %+v", b)
	}
	if b := BuildInfo(); b.Version == "" || b.Revision == "" || b.Branch == "" || b.Date == "" || b.GoVersion == "" || Version() != b.Version {
		t.Errorf("something is empty in %+v", b)
	}
}

func TestTracesGoOnlyWhereTheEnvironmentSays(t *testing.T) {
	var posts atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/traces" {
			posts.Add(1)
		}
	}))
	defer srv.Close()
	trace := func() {
		t.Helper()
		l, b := logger(t, FormatLogfmt)
		c, err := StartTracing("amphora-test", l)
		if err != nil {
			t.Fatal(err)
		}
		_, span := otel.Tracer("test").Start(t.Context(), "op")
		span.End()
		if err := c.Close(); err != nil {
			t.Errorf("%v: %s", err, b.String())
		}
	}
	trace() // nothing is set
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_SDK_DISABLED", "true")
	trace()
	if posts.Load() != 0 {
		t.Fatalf("%d posts before tracing was asked for", posts.Load())
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	trace()
	if posts.Load() == 0 {
		t.Error("no traces arrived")
	}
}
