package harness

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v2"
)

// CollectorOptions says where an OpenTelemetry collector sends what it receives.
type CollectorOptions struct {
	Dir string // its configuration and log
	// Exporters is the section of that name: each exporter with its settings. All metrics go to all.
	Exporters map[string]any
	// Extensions is the section of that name; all are used. Exporters name those that they authenticate by.
	Extensions  map[string]any
	Environment []string // added to that of this process: name=value
}

// Collector is a running OpenTelemetry collector.
type Collector struct {
	*Process

	// Metrics is the URL at which it takes OTLP over HTTP.
	Metrics string
}

// StartCollector starts the collector that `make tools` builds and waits until it takes requests. One
// returned with an error must be stopped too. Errors: ErrNoTool.
func StartCollector(ctx context.Context, log *slog.Logger, o CollectorOptions) (*Collector, error) {
	path, err := Tool("otelcol")
	if err != nil {
		return nil, err
	}
	free, err := new(Ports).Free(1)
	if err != nil {
		return nil, err
	}
	at := address(free[0])
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the collector: %w", err)
	}
	var names []string
	for name := range o.Exporters {
		names = append(names, name)
	}
	extensions := make([]string, 0, len(o.Extensions))
	for name := range o.Extensions {
		extensions = append(extensions, name)
	}
	text, err := yaml.Marshal(object{
		"extensions": o.Extensions,
		"receivers":  object{"otlp": object{"protocols": object{"http": object{"endpoint": at}}}},
		"exporters":  o.Exporters,
		"service": object{
			"extensions": extensions,
			"telemetry":  object{"metrics": object{"level": "none"}},
			"pipelines":  object{"metrics": object{"receivers": []string{"otlp"}, "exporters": names}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the configuration of the collector: %w", err)
	}
	file := filepath.Join(o.Dir, "collector.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of the collector: %w", err)
	}
	c := &Collector{Metrics: "http://" + at + "/v1/metrics"}
	c.Process = NewProcess(log, Command{Name: "otelcol", Path: path, LogFile: filepath.Join(o.Dir, "log"), Args: []string{"--config=file:" + file}, Env: o.Environment})
	if err := c.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c, c.until(ctx, "take requests", func(ctx context.Context) error { return takes(ctx, c.Metrics) })
}

// takes says whether an empty request is taken at url.
func takes(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}
