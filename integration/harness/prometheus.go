package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v2"
)

// PrometheusOptions says what a real Prometheus scrapes and where it writes.
type PrometheusOptions struct {
	Name    string // unique among the processes of a test; "": prometheus
	Dir     string // its data, configuration and log
	Port    int    // 0: a free one
	Every   time.Duration
	Targets []string // host:port of what it scrapes at /metrics
	PushURL string   // remote write; "": none
	// PushTimeout is how long it waits for the answer to a push; 0: as long as it does by itself, 30 s.
	PushTimeout time.Duration
	Tenant      string // X-Scope-OrgID of what it sends; "": none
	Version2    bool   // remote write 2.0 instead of 1.0
	Sign        Keys   // what it signs with, as for Amazon's service; none: it does not
	Labels      map[string]string
	Receiver    bool   // accepts remote write at /api/v1/write, with the defaults of Prometheus, and scrapes nothing
	Late        bool   // as a Receiver, it takes samples of any age, and writes no blocks before WriteBlocks
	ReadURL     string // as a Receiver, it reads from there too, as Tenant; "": it does not
	Features    []string
	Flags       []string // more of them
}

// Keys are an access key of the region us-east-1.
type Keys struct{ ID, Secret string }

// Prometheus is a running Prometheus server.
type Prometheus struct {
	*Process

	Address string // host:port

	args []string // without those for Late
}

// StartPrometheus starts the Prometheus that `make tools` builds, in the version of go.mod, and
// waits until it is ready. A server returned with an error must be stopped too. Errors: ErrNoTool.
func StartPrometheus(ctx context.Context, log *slog.Logger, o PrometheusOptions) (*Prometheus, error) {
	path, err := Tool("prometheus")
	if err != nil {
		return nil, err
	}
	if o.Port == 0 {
		free, err := new(Ports).Free(1)
		if err != nil {
			return nil, err
		}
		o.Port = free[0]
	}
	if o.Name == "" {
		o.Name = "prometheus"
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of %s: %w", o.Name, err)
	}
	text, err := o.config()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.Dir, "prometheus.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", o.Name, err)
	}
	p := &Prometheus{Address: address(o.Port)}
	p.args = append(o.flags(), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(o.Dir, "data"), "--web.listen-address="+p.Address)
	args := p.args
	if o.Late {
		// A compaction that meets a push of late samples can end this Prometheus (v0.315.0): "panic: expected newly cut
		// file to have sequence:offset 1:8, got 2:8".
		args = append(slices.Clone(args), "--storage.tsdb.min-block-duration=1000h", "--storage.tsdb.max-block-duration=1000h")
	}
	p.Process = NewProcess(log, Command{Name: o.Name, Path: path, LogFile: filepath.Join(o.Dir, "log"), Args: args})
	if err := p.Start(); err != nil {
		return nil, err
	}
	return p, p.ready(ctx)
}

func (p *Prometheus) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.until(ctx, "be ready", func(ctx context.Context) error {
		_, err := Get(ctx, "http://"+p.Address+"/-/ready")
		return err
	})
}

// WriteBlocks restarts a Prometheus that takes late samples as one that writes blocks, and returns once they are
// written: what it took must span several hours. push sends anything it took already.
func (p *Prometheus) WriteBlocks(ctx context.Context, push func()) error {
	if err := p.Stop(); err != nil {
		return err
	}
	p.setArgs(p.args)
	if err := p.Start(); err != nil {
		return err
	}
	if err := p.ready(ctx); err != nil {
		return err
	}
	push() // it looks after a push whether blocks can be written
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := p.until(ctx, "write blocks", func(ctx context.Context) error {
		text, err := Get(ctx, "http://"+p.Address+"/metrics")
		if err == nil && bytes.Contains(text, []byte("\nprometheus_tsdb_compactions_total 0\n")) {
			err = errors.New("none is written")
		}
		return err
	})
	if err != nil {
		return err
	}
	// This waits for the compaction that goes on.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.Address+"/api/v1/admin/tsdb/clean_tombstones", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("clean the tombstones of %s: %s", p.Name, res.Status)
	}
	return nil
}

func (o PrometheusOptions) flags() []string {
	flags := append([]string(nil), o.Flags...)
	if len(o.Features) > 0 {
		flags = append(flags, "--enable-feature="+strings.Join(o.Features, ","))
	}
	if o.Receiver {
		flags = append(flags, "--web.enable-remote-write-receiver", "--web.enable-admin-api", "--query.max-samples=1000000000") // who compares asks for much
	}
	return flags
}

// object is one mapping of a YAML file.
type object map[string]any

// config writes prometheus.yml. Sending starts within a second, as a test should not wait for a
// batch to fill.
func (o PrometheusOptions) config() ([]byte, error) {
	if o.Receiver {
		text := "global: {}\n"
		if o.Late {
			text += "storage: {tsdb: {out_of_order_time_window: 10y}}\n"
		}
		if o.ReadURL != "" {
			text += fmt.Sprintf("remote_read: [{url: %q, read_recent: true, headers: {X-Scope-OrgID: %q}}]\n", o.ReadURL, o.Tenant)
		}
		return []byte(text), nil
	}
	every := max(o.Every, 100*time.Millisecond).String()
	external := map[string]string{"prometheus": o.Name}
	for k, v := range o.Labels {
		external[k] = v
	}
	file := object{
		"global": object{"scrape_interval": every, "scrape_timeout": every, "external_labels": external},
		"scrape_configs": []object{{
			"job_name":       "harness",
			"static_configs": []object{{"targets": o.Targets}},
		}},
	}
	if o.PushURL != "" {
		message := "prometheus.WriteRequest"
		if o.Version2 {
			message = "io.prometheus.write.v2.Request"
		}
		write := object{
			"url": o.PushURL, "protobuf_message": message,
			"queue_config":    object{"batch_send_deadline": "500ms", "min_backoff": "50ms", "max_backoff": "1s", "retry_on_http_429": true},
			"metadata_config": object{"send_interval": "1s"},
		}
		if o.PushTimeout > 0 {
			write["remote_timeout"] = o.PushTimeout.String()
		}
		if o.Tenant != "" {
			write["headers"] = object{"X-Scope-OrgID": o.Tenant}
		}
		if o.Sign.ID != "" {
			write["sigv4"] = object{"region": "us-east-1", "access_key": o.Sign.ID, "secret_key": o.Sign.Secret}
		}
		file["remote_write"] = []object{write}
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", o.Name, err)
	}
	return []byte(strings.TrimSpace(string(text)) + "\n"), nil
}
