package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/grafana/dskit/tracing"
	"go.opentelemetry.io/otel/attribute"
)

// StartTracing sends traces to where the environment says, by OpenTelemetry's own variables
// (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER, OTEL_TRACES_SAMPLER, ...) or Jaeger's
// (JAEGER_AGENT_HOST, ...). Without them, or with OTEL_SDK_DISABLED=true, there are no traces and
// nothing is sent. service is the target, "amphora-ingester". Closing flushes what is pending.
func StartTracing(service string, log *slog.Logger) (io.Closer, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return closeNothing{}, nil
	}
	c, err := tracing.NewOTelOrJaegerFromEnv(service, GoKit(log), tracing.WithPyroscopeDisabled(),
		tracing.WithResourceAttributes(attribute.String("service.version", Version())))
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	return c, nil
}

type closeNothing struct{}

func (closeNothing) Close() error { return nil }
