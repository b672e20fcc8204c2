package alertmanager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/alertmanager/pkg/labels"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// grafanaDocument is a configuration of Grafana that shall be understood as a whole. What is raw means nothing
// for what is sent.
type grafanaDocument struct {
	Configuration struct {
		TemplateFiles map[string]string `json:"template_files"`
		Templates     []struct {
			Name       string          `json:"name"`
			Content    string          `json:"content"`
			Kind       string          `json:"kind"`
			Provenance json.RawMessage `json:"provenance"`
		} `json:"templates"`
		Alertmanager grafanaAlertmanager `json:"alertmanager_config"`
		Provenances  json.RawMessage     `json:"template_file_provenances"`
		Extra        []any               `json:"extra_config"`
		Extras       []any               `json:"extra_configs"`
	} `json:"configuration"`
	ExternalURL string            `json:"external_url"`
	Headers     map[string]string `json:"static_headers"`
	From        string            `json:"smtp_from"`
	SMTP        grafanaSMTP       `json:"smtp_config"`
}

// grafanaAlertmanager is the part that is close to upstream's configuration.
type grafanaAlertmanager struct {
	Route         *grafanaRouting   `json:"route"`
	Receivers     []grafanaReceiver `json:"receivers"`
	Intervals     []any             `json:"time_intervals"`
	MuteIntervals []any             `json:"mute_time_intervals"`
	Inhibit       []any             `json:"inhibit_rules"`
	Global        map[string]any    `json:"global"`
	Templates     json.RawMessage   `json:"templates"`
	Provenances   json.RawMessage   `json:"muteTimeProvenances"`
}

type grafanaReceiver struct {
	Name         string               `json:"name"`
	Integrations []grafanaIntegration `json:"grafana_managed_receiver_configs"`
}

// grafanaRouting is a route with all that it may have.
type grafanaRouting struct {
	Receiver   string            `json:"receiver"`
	GroupBy    []string          `json:"group_by"`
	Match      map[string]string `json:"match"`
	MatchRE    map[string]string `json:"match_re"`
	Matchers   []string          `json:"matchers"`
	Objects    [][]string        `json:"object_matchers"`
	Mute       []string          `json:"mute_time_intervals"`
	Active     []string          `json:"active_time_intervals"`
	Continue   bool              `json:"continue"`
	Routes     []*grafanaRouting `json:"routes"`
	Wait       string            `json:"group_wait"`
	Interval   string            `json:"group_interval"`
	Repeat     string            `json:"repeat_interval"`
	Provenance json.RawMessage   `json:"provenance"`
	Version    json.RawMessage   `json:"version"`
	Name       json.RawMessage   `json:"name"`
}

// grafanaSMTP is how a Grafana sends mails.
type grafanaSMTP struct {
	Host       string            `json:"host"`
	User       string            `json:"user"`
	Password   string            `json:"password"`
	From       string            `json:"from_address"`
	FromName   string            `json:"from_name"`
	Hello      string            `json:"ehlo_identity"`
	SkipVerify bool              `json:"skip_verify"`
	StartTLS   string            `json:"start_tls_policy"`
	Headers    map[string]string `json:"static_headers"`
}

// put sets how a mail is sent. TLS is demanded unless the policy is to have none.
func (g *grafanaSMTP) put(n node) {
	host := g.Host
	if !strings.Contains(host, ":") {
		host += ":25"
	}
	n["smarthost"], n["require_tls"] = host, g.StartTLS != "NoStartTLS"
	from := g.From
	if g.FromName != "" && from != "" {
		from = fmt.Sprintf("%q <%s>", g.FromName, from)
	}
	put(n, "from", from)
	put(n, "hello", g.Hello)
	put(n, "auth_username", g.User)
	put(n, "auth_password", g.Password)
	if g.SkipVerify {
		n["tls_config"] = node{"insecure_skip_verify": true}
	}
}

func (g *grafanaSMTP) headers(subject string) map[string]string {
	out := map[string]string{}
	for k, v := range g.Headers {
		out[k] = v
	}
	out["Subject"] = subject
	return out
}

// readGrafana reads a configuration of Grafana whose every part must be known. Errors: Invalid.
func readGrafana(data []byte) (*grafanaDocument, error) {
	d := &grafanaDocument{}
	if err := json.Unmarshal(data, d); err != nil {
		return nil, errs.New(errs.Invalid, "read the configuration of Grafana: %w", err)
	}
	var outer struct {
		Configuration json.RawMessage `json:"configuration"`
		SMTP          json.RawMessage `json:"smtp_config"`
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return nil, errs.New(errs.Invalid, "read the configuration of Grafana: %w", err)
	}
	strict := func(what string, part json.RawMessage, into any) error {
		if len(part) == 0 {
			return nil
		}
		dec := json.NewDecoder(bytes.NewReader(part))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			return errs.New(errs.Invalid, "the %s has a part that this server cannot honour: %w", what, err)
		}
		return nil
	}
	if err := strict("configuration of Grafana", outer.Configuration, &d.Configuration); err != nil {
		return nil, err
	}
	if err := strict("smtp_config", outer.SMTP, &d.SMTP); err != nil {
		return nil, err
	}
	switch c := d.Configuration; {
	case asks(c.Alertmanager.Global):
		return nil, errs.New(errs.Invalid, "alertmanager_config: global is not a part of Grafana's configurations that this server honours")
	case len(c.Extra)+len(c.Extras) > 0:
		return nil, errs.New(errs.Invalid, "extra configurations cannot be honoured: put them as the tenant's own")
	}
	if d.SMTP.From == "" {
		d.SMTP.From = d.From
	}
	if d.SMTP.Headers == nil {
		d.SMTP.Headers = d.Headers
	}
	return d, nil
}

// readPromoted reads a configuration that may be promoted; nothing of one that is not must be known.
// Errors: Invalid.
func readPromoted(data []byte) (d *grafanaDocument, promoted bool, err error) {
	var c grafanaConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, false, errs.New(errs.Invalid, "read the configuration of Grafana: %w", err)
	}
	if !c.Promoted || c.Default {
		return nil, false, nil
	}
	d, err = readGrafana(data)
	return d, err == nil, err
}

// secrets are the texts that must not be shown.
func (d *grafanaDocument) secrets() []string {
	var out []string
	if d.SMTP.Password != "" {
		out = append(out, d.SMTP.Password)
	}
	for _, r := range d.Configuration.Alertmanager.Receivers {
		for i := range r.Integrations {
			out = append(out, r.Integrations[i].secrets()...)
		}
	}
	return out
}

// texts is what templates of the configuration are rewritten with.
func (d *grafanaDocument) texts() *grafanaTexts {
	return &grafanaTexts{external: d.ExternalURL, smtp: d.SMTP}
}

// files returns the templates of the configuration, by name.
func (d *grafanaDocument) files() (map[string]string, error) {
	out := maps.Clone(d.Configuration.TemplateFiles)
	if out == nil {
		out = map[string]string{}
	}
	for _, t := range d.Configuration.Templates {
		if old, has := out[t.Name]; has && old != t.Content {
			return nil, errs.New(errs.Invalid, "the configuration of Grafana has two templates with the name %q", t.Name)
		}
		out[t.Name] = t.Content
	}
	return out, nil
}

// translateGrafana makes a definition of a configuration of Grafana. What cannot be honoured is refused.
// Errors: Invalid.
func translateGrafana(d *grafanaDocument) (Definition, error) {
	files, err := d.files()
	if err != nil {
		return Definition{}, err
	}
	texts := d.texts()
	templates, err := texts.files(files)
	if err != nil {
		return Definition{}, err
	}
	am := d.Configuration.Alertmanager
	if am.Route == nil {
		return Definition{}, errs.New(errs.Invalid, "the configuration of Grafana has no route")
	}
	out := node{}
	if out["route"], err = am.Route.upstream(0); err != nil {
		return Definition{}, err
	}
	var receivers []node
	for _, r := range am.Receivers {
		one, err := r.upstream(texts)
		if err != nil {
			return Definition{}, err
		}
		receivers = append(receivers, one)
	}
	out["receivers"] = receivers
	for name, list := range map[string][]any{"time_intervals": am.Intervals, "mute_time_intervals": am.MuteIntervals, "inhibit_rules": am.Inhibit} {
		if len(list) > 0 {
			out[name] = list
		}
	}
	return define(out, templates)
}

// define is the definition of a configuration that loads all templates.
func define(conf node, templates map[string]string) (Definition, error) {
	conf["templates"] = slices.Sorted(maps.Keys(templates))
	text, err := yaml.Marshal(conf)
	if err != nil {
		return Definition{}, errs.New(errs.Invalid, "translate the configuration of Grafana: %w", err)
	}
	return Definition{Templates: templates, Config: string(text)}, nil
}

// upstream is the receiver in upstream's form.
func (r *grafanaReceiver) upstream(texts *grafanaTexts) (node, error) {
	out := node{"name": r.Name}
	for i := range r.Integrations {
		g := &r.Integrations[i]
		list, from := kindOf(g.Type)
		if from == nil {
			return nil, errs.New(errs.Invalid, "receiver %q: type %s cannot be honoured: this server has no such receivers", r.Name, g.Type)
		}
		s, err := g.read(r.Name, texts)
		if err != nil {
			return nil, err
		}
		made := from(s)
		s.rest("")
		if s.problem != nil {
			return nil, s.problem
		}
		for _, n := range made {
			if _, set := n["send_resolved"]; !set {
				n["send_resolved"] = !g.DisableResolved
			}
			all, _ := out[list].([]node)
			out[list] = append(all, n)
		}
	}
	return out, nil
}

// maxDepth bounds routes in each other.
const maxDepth = 100

// upstream is the route in upstream's form. Errors: Invalid.
func (r *grafanaRouting) upstream(depth int) (node, error) {
	if r == nil || depth > maxDepth {
		return nil, errs.New(errs.Invalid, "a route of the configuration of Grafana is empty, or over %d deep", maxDepth)
	}
	out := node{}
	put(out, "receiver", r.Receiver)
	put(out, "match", r.Match)
	put(out, "match_re", r.MatchRE)
	put(out, "group_wait", r.Wait)
	put(out, "group_interval", r.Interval)
	put(out, "repeat_interval", r.Repeat)
	if r.Continue {
		out["continue"] = true
	}
	for name, list := range map[string][]string{"group_by": r.GroupBy, "mute_time_intervals": r.Mute, "active_time_intervals": r.Active} {
		if len(list) > 0 {
			out[name] = list
		}
	}
	matchers := slices.Clone(r.Matchers)
	for _, o := range r.Objects {
		m, err := matcherOf(o)
		if err != nil {
			return nil, err
		}
		matchers = append(matchers, m)
	}
	if len(matchers) > 0 {
		out["matchers"] = matchers
	}
	var below []node
	for _, one := range r.Routes {
		n, err := one.upstream(depth + 1)
		if err != nil {
			return nil, err
		}
		below = append(below, n)
	}
	if len(below) > 0 {
		out["routes"] = below
	}
	return out, nil
}

// matcherOf writes a matcher of Grafana, which is a name, an operator and a value, as upstream does.
func matcherOf(o []string) (string, error) {
	if len(o) != 3 {
		return "", errs.New(errs.Invalid, "object_matchers: %q is not a name, an operator and a value", o)
	}
	for _, t := range []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp} {
		if t.String() != o[1] {
			continue
		}
		m, err := labels.NewMatcher(t, o[0], o[2])
		if err != nil {
			return "", errs.New(errs.Invalid, "object_matchers: %q: %w", o, err)
		}
		return m.String(), nil
	}
	return "", errs.New(errs.Invalid, "object_matchers: %q has an operator that is none of = != =~ !~", o)
}

// listed takes a list apart whose items stand between commas, semicolons or line ends.
func listed(text string) []string {
	var out []string
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(",;\n\r", r) }) {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func ordered(list []string) []string {
	slices.Sort(list)
	return list
}

var generatedLine = regexp.MustCompile(`line \d+: `)

// unlined is an error without the lines of a text that its reader never saw, and without secrets.
func unlined(err error, secrets []string) error {
	if err == nil {
		return nil
	}
	return errs.New(errs.KindOf(err), "%s", hidden(generatedLine.ReplaceAllString(err.Error(), ""), secrets))
}
