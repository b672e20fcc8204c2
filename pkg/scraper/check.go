package scraper

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	httpconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/dns"
	"github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/scrape"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxJobs bounds the jobs of one scraper.
const maxJobs = 500

// Check says what is wrong with the configuration of a scraper. Errors: Invalid.
func Check(cfg *Config, data []byte) error {
	_, err := parse(cfg, data)
	return err
}

// plan is a configuration that may run.
type plan struct {
	config   *promconfig.Config
	jobs     []*promconfig.ScrapeConfig
	external labels.Labels
	slowest  time.Duration // interval
}

// parse reads the configuration of a scraper. What it holds comes from a tenant: it can name no file, no
// variable of the environment and no credentials of this process, and it keeps to the settings' bounds.
// Errors: Invalid.
func parse(cfg *Config, data []byte) (*plan, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if root.Kind != yaml.DocumentNode {
		return nil, errs.New(errs.Invalid, "the configuration is empty")
	}
	if err := allow(root.Content[0], topLevel(), ""); err != nil {
		return nil, err
	}
	loaded, err := promconfig.Load(string(data), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	p := &plan{config: loaded, external: loaded.GlobalConfig.ExternalLabels}
	if p.jobs, err = loaded.GetScrapeConfigs(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if len(p.jobs) == 0 || len(p.jobs) > maxJobs {
		return nil, errs.New(errs.Invalid, "scrape_configs must have 1 to %d jobs, not %d", maxJobs, len(p.jobs))
	}
	for _, job := range p.jobs {
		if err := bound(cfg, job); err != nil {
			return nil, errs.New(errs.Invalid, "job %s: %w", job.JobName, err)
		}
		p.slowest = max(p.slowest, time.Duration(job.ScrapeInterval))
	}
	return p, nil
}

// bound makes job keep to the settings.
func bound(cfg *Config, job *promconfig.ScrapeConfig) error {
	if d := time.Duration(job.ScrapeInterval); d < cfg.MinInterval {
		return fmt.Errorf("scrape_interval %s is shorter than %s", d, cfg.MinInterval)
	}
	if job.ScrapeFailureLogFile != "" {
		return fmt.Errorf("scrape_failure_log_file is not allowed")
	}
	if err := refuseFiles(&job.HTTPClientConfig); err != nil {
		return err
	}
	for _, d := range job.ServiceDiscoveryConfigs {
		if err := boundDiscovery(cfg, d); err != nil {
			return err
		}
	}
	atMost(&job.SampleLimit, uint(cfg.MaxSamples))
	atMost(&job.TargetLimit, uint(cfg.MaxTargets))
	atMost(&job.KeepDroppedTargets, droppedShown)
	if job.BodySizeLimit == 0 || int64(job.BodySizeLimit) > int64(cfg.MaxBodyBytes) {
		setBytes(&job.BodySizeLimit, cfg.MaxBodyBytes)
	}
	job.RelabelConfigs = append(slices.Clone(job.RelabelConfigs), lastRules(job)...)
	return nil
}

// droppedShown is how many targets that rules drop are remembered; nobody looks at them.
const droppedShown = 1

func atMost(v *uint, most uint) {
	if *v == 0 || *v > most {
		*v = most
	}
}

func setBytes[T ~int64](v *T, n int) { *v = T(n) }

// lastRules come after those of the tenant: no rule may make a target of a socket of this machine, or scrape
// more often than the job says.
func lastRules(job *promconfig.ScrapeConfig) []*relabel.Config {
	set := func(label, value string) *relabel.Config {
		r := relabel.DefaultRelabelConfig
		r.TargetLabel, r.Replacement, r.NameValidationScheme = label, value, model.UTF8Validation
		return &r
	}
	drop := relabel.DefaultRelabelConfig
	drop.Action, drop.SourceLabels, drop.Regex, drop.NameValidationScheme = relabel.Drop, model.LabelNames{scrape.UnixSocketLabel}, relabel.MustNewRegexp(".+"), model.UTF8Validation
	return []*relabel.Config{&drop, set(model.ScrapeIntervalLabel, job.ScrapeInterval.String()), set(model.ScrapeTimeoutLabel, job.ScrapeTimeout.String())}
}

func boundDiscovery(cfg *Config, d discovery.Config) error {
	switch d := d.(type) {
	case discovery.StaticConfig:
		return nil
	case *http.SDConfig:
		if i := time.Duration(d.RefreshInterval); i < cfg.MinInterval {
			return fmt.Errorf("http_sd_configs: refresh_interval %s is shorter than %s", i, cfg.MinInterval)
		}
		return refuseFiles(&d.HTTPClientConfig)
	case *dns.SDConfig:
		if i := time.Duration(d.RefreshInterval); i < cfg.MinInterval {
			return fmt.Errorf("dns_sd_configs: refresh_interval %s is shorter than %s", i, cfg.MinInterval)
		}
		return nil
	case *kubernetes.SDConfig:
		server := inCluster
		if d.APIServer.URL != nil {
			server = d.APIServer.String()
		}
		if !slices.Contains(cfg.KubernetesServers, server) {
			return fmt.Errorf("kubernetes_sd_configs: API server %s is none of those that the operator allows (scraper.kubernetes_api_servers)", server)
		}
		if d.KubeConfig != "" {
			return fmt.Errorf("kubernetes_sd_configs: kubeconfig_file is not allowed")
		}
		return refuseFiles(&d.HTTPClientConfig)
	}
	return fmt.Errorf("discovery by %s is not allowed", d.Name())
}

// inCluster stands for the API server of the pod that the process runs in.
const inCluster = "in-cluster"

// refuseFiles makes sure of what the names of the keys promise: that a client reads no file and uses no
// credentials and no proxy of the process.
func refuseFiles(c *httpconfig.HTTPClientConfig) error {
	t := &c.TLSConfig
	files := []string{c.BearerTokenFile, t.CAFile, t.CertFile, t.KeyFile, t.CARef, t.CertRef, t.KeyRef}
	if b := c.BasicAuth; b != nil {
		files = append(files, b.UsernameFile, b.PasswordFile, b.UsernameRef, b.PasswordRef)
	}
	if a := c.Authorization; a != nil {
		files = append(files, a.CredentialsFile, a.CredentialsRef)
	}
	if c.HTTPHeaders != nil {
		for _, h := range c.HTTPHeaders.Headers {
			files = append(files, h.Files...)
		}
	}
	if slices.ContainsFunc(files, func(f string) bool { return f != "" }) {
		return fmt.Errorf("files of the server are not read")
	}
	if c.OAuth2 != nil || c.ProxyFromEnvironment || c.ProxyURL.URL != nil {
		return fmt.Errorf("oauth2 and proxies are not allowed")
	}
	return nil
}
