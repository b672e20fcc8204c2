package alertmanager

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// defined is a definition with the lines of an upstream configuration.
func defined(t *testing.T, templates map[string]string, lines ...string) []byte {
	t.Helper()
	data, err := encodeDefinition(Definition{Templates: templates, Config: strings.Join(lines, "\n") + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func checked(data []byte, receivers string, v limits.View) error {
	d, err := parse(data, rules{receivers: receivers}, v)
	if err != nil {
		return err
	}
	_, err = build(d, "t", &url.URL{Scheme: "http", Host: "here"}, &sending{log: slog.New(slog.DiscardHandler), view: func() limits.View { return v }})
	return err
}

func TestAWrongDefinitionIsRefusedWithLineAndReason(t *testing.T) {
	hook := func(settings ...string) []string {
		return append([]string{"route:", "  receiver: a", "receivers:", "- name: a", "  webhook_configs:", "  - url: http://example.com"}, settings...)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no YAML":             {[]byte("{"), "no mapping"},
		"unknown key":         {[]byte("alertmanager_config: x\nother: 1\n"), "line 2"},
		"empty":               {[]byte("template_files: {}\n"), "no alertmanager_config"},
		"no receiver":         {defined(t, nil, "route:", "  receiver: b", "receivers:", "- name: a"), `line 2: undefined receiver "b"`},
		"unknown field":       {defined(t, nil, hook("    urls: x")...), "line 7"},
		"file":                {defined(t, nil, hook("    http_config:", "      bearer_token_file: /etc/passwd")...), "line 7: receivers[0].webhook_configs[0].http_config.authorization.credentials_file is not allowed"},
		"url file":            {defined(t, nil, "route:", "  receiver: a", "receivers:", "- name: a", "  webhook_configs:", "  - url_file: /etc/passwd"), "url_file is not allowed"},
		"global file":         {defined(t, nil, append(hook(), "global:", "  opsgenie_api_key_file: /x")...), "opsgenie_api_key_file is not allowed"},
		"oauth file":          {defined(t, nil, hook("    http_config:", "      oauth2:", "        client_id: a", "        token_url: http://x", "        client_secret_file: /x")...), "oauth2.client_secret_file is not allowed"},
		"TLS file":            {defined(t, nil, hook("    http_config:", "      tls_config:", "        ca_file: /x")...), "ca_file is not allowed"},
		"header file":         {defined(t, nil, hook("    http_config:", "      http_headers:", "        X-A:", "          files: [/x]")...), "files is not allowed"},
		"proxy":               {defined(t, nil, hook("    http_config:", "      proxy_url: http://x")...), "line 8: receivers[0].webhook_configs[0].http_config.proxy_url is not allowed"},
		"environment's proxy": {defined(t, nil, hook("    http_config:", "      proxy_from_environment: true")...), "proxy_from_environment is not allowed"},
		"profile":             {defined(t, nil, "route:", "  receiver: a", "receivers:", "- name: a", "  sns_configs:", "  - topic_arn: a", "    sigv4: {region: r, profile: p}"), "profile is not allowed"},
		"AWS client":          {defined(t, nil, "route:", "  receiver: a", "receivers:", "- name: a", "  sns_configs:", "  - topic_arn: a", "    sigv4: {region: r}", "    use_aws_http_client: true"), "use_aws_http_client is not allowed"},
		"tracing":             {defined(t, nil, append(hook(), "tracing:", "  endpoint: x", "  client_type: grpc")...), "line 7: tracing is a setting of the server"},
		"template's path":     {defined(t, map[string]string{"../x": ""}, hook()...), `"../x" is no plain file name`},
		"template's text":     {defined(t, map[string]string{"x": "a\n{{ nothing }}"}, hook()...), "template_files: x: "},
		"endless template":    {defined(t, map[string]string{"x": `{{define "a"}}{{template "a" .}}{{template "a" .}}{{end}}`}, hook()...), `template "a" calls itself`},
		"endless text": {defined(t, nil, "route:", "  receiver: a", "receivers:", "- name: a", "  sns_configs:", "  - topic_arn: a", "    sigv4: {region: r}",
			`    message: '{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}'`), `template "a" calls itself`},
		"other files":     {defined(t, nil, append(hook(), "templates: ['/etc/*']")...), "line 7: templates[0]: \"/etc/*\" names a file outside"},
		"absent template": {defined(t, nil, append(hook(), "templates: ['x']")...), `template_files has no "x"`},
	} {
		err := checked(c.data, ReceiversAll, limits.View{})
		if err == nil || errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%s), want %s", name, err, errs.KindOf(err), c.want)
		}
	}
	good := defined(t, map[string]string{"a.tmpl": `{{ define "a" }}{{ tenantID }}{{ end }}`}, append(hook(), "templates: ['*.tmpl']")...)
	if err := checked(good, ReceiversAll, limits.View{}); err != nil {
		t.Error(err)
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add([]byte("alertmanager_config: |\n  route:\n    receiver: a\n  receivers:\n  - name: a\n    sns_config: {topic_arn: a}\n"))
	f.Add([]byte("template_files: {a: '{{ .'}\nalertmanager_config: |\n  global: {templates: [a]}\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		for _, receivers := range []string{ReceiversAll, ReceiversSNS} {
			_ = checked(data, receivers, limits.View{})
		}
	})
}

func TestDefinitionsKeepToTheLimits(t *testing.T) {
	data := defined(t, map[string]string{"a": "12345", "b": ""}, "route:", "  receiver: a", "receivers:", "- name: a")
	var none limits.View
	for want, v := range map[string]limits.View{
		"over the limit of 10": limits.AlertmanagerMaxConfigSize.With(none, 10),
		"over the limit of 1":  limits.AlertmanagerMaxTemplates.With(none, 1),
		"over the limit of 4":  limits.AlertmanagerMaxTemplateSize.With(none, 4),
	} {
		if err := checked(data, ReceiversAll, v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := checked(data, ReceiversAll, none); err != nil {
		t.Error(err)
	}
}

func TestABaseIsUnderEveryConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "base.yaml")
	write := func(text string) rules {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		by, err := (&Config{Receivers: ReceiversAll, BaseFile: file}).rules()
		if err != nil {
			t.Fatal(err)
		}
		return by
	}
	by := write("receivers:\n- name: operator\n  webhook_configs:\n  - url_file: /etc/hook\ninhibit_rules:\n- source_matchers: [a=b]\n  target_matchers: [c=d]\n")
	d, err := parse(defined(t, nil, "route:", "  receiver: operator", "receivers:", "- name: mine"), by, limits.View{})
	if err != nil || len(d.conf.Receivers) != 2 || len(d.conf.InhibitRules) != 1 {
		t.Errorf("merged: %v", err)
	}
	_, err = parse(defined(t, nil, "route:", "  receiver: operator", "receivers:", "- name: operator"), by, limits.View{})
	if errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("a name of both: %v", err)
	}
	_, err = parse(defined(t, nil, "route:", "  receiver: mine", "receivers:", "- name: mine", "  webhook_configs:", "  - url_file: /etc/hook"), by, limits.View{})
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "url_file is not allowed") {
		t.Errorf("a file of a tenant's receiver: %v", err)
	}
	if err := os.WriteFile(file, []byte("route: {receiver: x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Config{BaseFile: file}).rules(); err == nil {
		t.Error("a base with a route is taken")
	}
}

func TestSNSOnlyIsWhatAmazonsServiceAllows(t *testing.T) {
	sns := func(settings ...string) []string {
		return append([]string{"route:", "  receiver: a", "receivers:", "- name: a", "  sns_configs:", "  - topic_arn: arn:aws:sns:us-east-1:123456789012:t"}, settings...)
	}
	region := "    sigv4: {region: us-east-1}"
	for want, lines := range map[string][]string{
		"line 5: receivers[0].webhook_configs is not allowed":        {"route:", "  receiver: a", "receivers:", "- name: a", "  webhook_configs:", "  - url: http://x"},
		"line 8: receivers[0].sns_configs[0].api_url is not allowed": sns(region, "    api_url: http://x"),
		"receivers[0].sns_configs[0].http_config is not allowed":     sns(region, "    http_config: {}"),
		"receivers[0].sns_configs[0].sigv4 has no region":            sns(),
		"exactly one of topic_arn":                                   sns(region, "    phone_number: '1'", "    target_arn: a"),
	} {
		err := checked(defined(t, nil, lines...), ReceiversSNS, limits.View{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	// What Amazon's guide shows, and upstream does not read.
	guide := []string{"global:", "  templates:", "    - 'x'", "route:", "  receiver: a", "receivers:", "- name: a", "  sns_config:",
		"    topic_arn: arn:aws:sns:us-east-1:123456789012:t", region, "    attributes: {key: key1, value: value1}"}
	d, err := parse(defined(t, map[string]string{"x": `{{ define "sns.default.message" }}mine{{ end }}`}, guide...), rules{receivers: ReceiversSNS}, limits.View{})
	if err != nil || len(d.used) != 1 || len(d.conf.Receivers[0].SNSConfigs) != 1 {
		t.Errorf("the guide's sample: %v", err)
	}
}

func TestRoutesAndInhibitionRulesAreCounted(t *testing.T) {
	v := limits.AlertmanagerMaxInhibitRules.With(limits.AlertmanagerMaxRoutes.With(limits.View{}, 3), 1)
	lines := []string{"route:", "  receiver: a", "  routes:", "  - receiver: a", "    routes:", "    - receiver: a", "receivers:", "- name: a", "inhibit_rules:", "- source_matchers: [a=b]", "  target_matchers: [c=d]"}
	if err := checked(defined(t, nil, lines...), ReceiversAll, v); err != nil {
		t.Error(err)
	}
	more := append(slices.Clone(lines), "- source_matchers: [a=b]", "  target_matchers: [c=e]")
	if err := checked(defined(t, nil, more...), ReceiversAll, v); err == nil || !strings.Contains(err.Error(), "line 9") || !strings.Contains(err.Error(), "2 inhibit_rules, over the limit of 1") {
		t.Error(err)
	}
	more = slices.Insert(slices.Clone(lines), 6, "    - receiver: a")
	if err := checked(defined(t, nil, more...), ReceiversAll, v); err == nil || !strings.Contains(err.Error(), "4 routes, over the limit of 3") {
		t.Error(err)
	}
}

func TestTheFirewallLooksAtAddresses(t *testing.T) {
	private := limits.AlertmanagerBlockPrivate.With(limits.View{}, true)
	some := limits.AlertmanagerBlockCIDRs.With(limits.View{}, []string{"192.0.2.0/24", "2001:db8::/32"})
	for _, c := range []struct {
		ip      string
		v       limits.View
		blocked bool
	}{
		{"127.0.0.1", private, true}, {"10.1.2.3", private, true}, {"::1", private, true}, {"::ffff:127.0.0.1", private, true}, {"169.254.169.254", private, true},
		{"fe80::1", private, true}, {"fd00::1", private, true}, {"224.0.0.1", private, true}, {"0.0.0.0", private, true}, {"192.0.2.1", private, false},
		{"192.0.2.1", some, true}, {"::ffff:192.0.2.1", some, true}, {"2001:db8::1", some, true}, {"10.0.0.1", some, false}, {"127.0.0.1", limits.View{}, false},
	} {
		f := firewall{func() limits.View { return c.v }}
		if err := f.check(addr(t, c.ip)); (err != nil) != c.blocked {
			t.Errorf("%s: %v, want blocked %v", c.ip, err, c.blocked)
		}
	}
	f := firewall{func() limits.View { return private }}
	if c, err := f.dial(t.Context(), "tcp", "localhost:1"); err == nil || !strings.Contains(err.Error(), "firewall") {
		t.Errorf("a name of a private address: %v, %v", c, err)
	}
}
