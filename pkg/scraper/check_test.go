package scraper

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/scrape"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// defaults are the settings as nobody set them.
func defaults(t testing.TB) Config {
	t.Helper()
	var c Config
	set := config.NewSet()
	set.Mount("scraper", &c)
	return c
}

const staticJob = "scrape_configs:\n- job_name: a\n  static_configs: [{targets: [\"h:1\"]}]\n"

func TestAConfigurationReadsNothingOfTheServer(t *testing.T) {
	t.Setenv("SECRET", "x")
	cfg := defaults(t)
	cfg.KubernetesServers = []string{"https://k:6443"}
	for _, ok := range []string{
		staticJob,
		"global: {scrape_interval: 30s, external_labels: {a: b, price: $$5}}\n" + staticJob,
		staticJob + "  basic_auth: {username: u, password: p}\n",
		staticJob + "  authorization: {credentials: c}\n  tls_config: {insecure_skip_verify: true}\n  http_headers: {X-A: {values: [b]}}\n",
		staticJob + "  relabel_configs: [{source_labels: [a], target_label: b, replacement: $1-x}]\n",
		"scrape_configs: [{job_name: a, http_sd_configs: [{url: \"http://h/sd\"}]}]",
		"scrape_configs: [{job_name: a, dns_sd_configs: [{names: [h]}]}]",
		"scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: pod, api_server: \"https://k:6443\", bearer_token: t}]}]",
	} {
		if err := Check(&cfg, []byte(ok)); err != nil {
			t.Errorf("%s\nis refused: %v", ok, err)
		}
	}
	for text, why := range map[string]string{
		"":                   "empty",
		"scrape_configs: []": "1 to",
		"rule_files: [/etc/passwd]\n" + staticJob:                                                          "rule_files is not allowed",
		"remote_write: [{url: http://h}]\n" + staticJob:                                                    "remote_write is not allowed",
		"scrape_config_files: [/etc/*]\n" + staticJob:                                                      "scrape_config_files",
		"global: {external_labels: {a: \"${SECRET}\"}}\n" + staticJob:                                      "environment",
		"global: {external_labels: {a: \"$SECRET\"}}\n" + staticJob:                                        "environment",
		"global: {scrape_failure_log_file: /tmp/x}\n" + staticJob:                                          "scrape_failure_log_file",
		"global: {query_log_file: /tmp/x}\n" + staticJob:                                                   "query_log_file",
		staticJob + "  scrape_failure_log_file: /tmp/x\n":                                                  "scrape_failure_log_file",
		staticJob + "  bearer_token_file: /tmp/x\n":                                                        "bearer_token_file",
		staticJob + "  authorization: {credentials_file: /tmp/x}\n":                                        "credentials_file",
		staticJob + "  basic_auth: {username: u, password_file: /tmp/x}\n":                                 "password_file",
		staticJob + "  tls_config: {ca_file: /tmp/x}\n":                                                    "ca_file",
		staticJob + "  http_headers: {X-A: {files: [/tmp/x]}}\n":                                           "files",
		staticJob + "  oauth2: {client_id: a, token_url: \"http://h\"}\n":                                  "oauth2",
		staticJob + "  proxy_url: http://h\n":                                                              "proxy_url",
		staticJob + "  proxy_from_environment: true\n":                                                     "proxy_from_environment",
		staticJob + "  file_sd_configs: [{files: [/tmp/x.json]}]\n":                                        "file_sd_configs",
		staticJob + "  ec2_sd_configs: [{region: r}]\n":                                                    "ec2_sd_configs",
		"scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: pod}]}]":                            "in-cluster",
		"scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: pod, api_server: \"https://o\"}]}]": "none of those",
		"scrape_configs: [{job_name: a, kubernetes_sd_configs: [{role: pod, kubeconfig_file: /x}]}]":       "kubeconfig_file",
		"scrape_configs: [{job_name: a, http_sd_configs: [{url: \"file:///etc/passwd\"}]}]":                "scheme",
		"scrape_configs: [{job_name: a, http_sd_configs: [{url: \"http://h\", refresh_interval: 1s}]}]":    "shorter",
		"global: {scrape_interval: 1s}\n" + staticJob:                                                      "shorter",
		"x: &a {job_name: b}\nscrape_configs: [*a]":                                                        "not allowed",
		"scrape_configs: [&a {job_name: b}, *a]":                                                           "alias",
		"scrape_configs: [{<<: {job_name: b}}]":                                                            "keys are names",
		staticJob + "\tbroken":                                                                             "",
	} {
		err := Check(&cfg, []byte(text))
		if err == nil || errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), why) {
			t.Errorf("%s\nanswered %v, want %q", text, err, why)
		}
	}
}

// FuzzCheck feeds configurations that may be anything: what is accepted names no file.
func FuzzCheck(f *testing.F) {
	f.Add(staticJob)
	f.Add("scrape_configs: [{job_name: a, http_sd_configs: [{url: \"http://h/sd\", tls_config: {ca_file: /x}}]}]")
	f.Add("global: {external_labels: {a: \"${HOME}\"}}\n" + staticJob)
	cfg := defaults(f)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parse(&cfg, []byte(text))
		if err != nil {
			return
		}
		for _, job := range p.jobs {
			if err := refuseFiles(&job.HTTPClientConfig); err != nil || time.Duration(job.ScrapeInterval) < cfg.MinInterval || job.SampleLimit == 0 {
				t.Fatalf("%q is accepted: %v", text, err)
			}
		}
	})
}

func TestRulesMakeNoTargetOfASocketAndNoShorterInterval(t *testing.T) {
	cfg := defaults(t)
	p, err := parse(&cfg, []byte("global: {scrape_interval: 30s}\n"+staticJob+"  relabel_configs:\n  - {target_label: __scrape_interval__, replacement: 1ms}\n  - {action: labelmap, regex: evil_(.+), replacement: \"__${1}__\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	rules := p.jobs[0].RelabelConfigs
	process := func(ls labels.Labels) (labels.Labels, bool) {
		b := labels.NewBuilder(ls)
		keep := relabel.ProcessBuilder(b, rules...)
		return b.Labels(), keep
	}
	ls, keep := process(labels.FromStrings("__address__", "h:1"))
	if !keep || ls.Get("__scrape_interval__") != "30s" || ls.Get("__scrape_timeout__") != "10s" {
		t.Errorf("target is %v, %v", ls, keep)
	}
	if ls, keep := process(labels.FromStrings("__address__", "h:1", "evil_unix_socket", "/run/docker.sock")); keep {
		t.Errorf("%v is kept with %s", ls, scrape.UnixSocketLabel)
	}
}

func TestScrapersReachOnlyWhatTheyMay(t *testing.T) {
	cfg := defaults(t)
	cfg.BlockedNetworks = []string{"10.0.0.0/8"}
	wall := newFirewall(&cfg)
	for text, ok := range map[string]bool{
		"127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "::": false, "224.0.0.1": false,
		"0.1.2.3": false, "255.255.255.255": false, "::ffff:127.0.0.1": false, "fd00:ec2::254": false, "100.100.100.200": false, "168.63.129.16": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::808:808": true,
		"10.1.2.3": false, "192.168.1.1": true, "8.8.8.8": true, "2001:db8::1": true,
	} {
		if err := wall.check(netip.MustParseAddr(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	cfg.AllowedNetworks = []string{"127.0.0.0/8", "10.2.0.0/16"}
	wall = newFirewall(&cfg)
	for text, ok := range map[string]bool{"127.0.0.1": true, "10.2.3.4": true, "10.1.2.3": false, "::1": false} {
		if err := wall.check(netip.MustParseAddr(text)); (err == nil) != ok {
			t.Errorf("with exceptions %s: %v", text, err)
		}
	}
	if _, err := wall.dial(t.Context(), "unix", "/run/x.sock"); err == nil {
		t.Error("a socket is connected to")
	}
}
