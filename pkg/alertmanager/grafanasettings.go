package alertmanager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// node is a mapping of an upstream configuration.
type node = map[string]any

// settings are those of one integration of Grafana. Every one that is looked at is honoured; what nobody
// looked at is refused at the end, so that nothing is dropped without a word.
type settings struct {
	receiver, kind string
	values         map[string]any
	looked         map[string]bool
	texts          *grafanaTexts
	problem        error // the first
}

// wrong notes what is wrong with a setting.
func (s *settings) wrong(name, format string, args ...any) {
	if s.problem == nil {
		s.problem = errs.New(errs.Invalid, "receiver %q: type %s: setting %s %s", s.receiver, s.kind, name, fmt.Sprintf(format, args...))
	}
}

func (s *settings) get(name string) any {
	s.looked[name] = true
	return s.values[name]
}

// text is a setting that is a text, or a number that is written as one.
func (s *settings) text(name string) string {
	switch v := s.get(name).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	}
	s.wrong(name, "is no text")
	return ""
}

// need is a text without which nothing can be sent.
func (s *settings) need(name string) string {
	v := strings.TrimSpace(s.text(name))
	if v == "" {
		s.wrong(name, "is missing")
	}
	return v
}

// template is a text in Grafana's language of templates.
func (s *settings) template(name, otherwise string) string {
	v := s.text(name)
	if v == "" {
		return otherwise
	}
	out, err := s.texts.rewrite(v)
	if err != nil {
		s.wrong(name, "is a template that cannot be used: %v", err)
	}
	return out
}

func (s *settings) flag(name string, otherwise bool) bool {
	switch v := s.get(name).(type) {
	case nil:
		return otherwise
	case bool:
		return v
	case string:
		if v == "" {
			return otherwise
		}
		if b, err := strconv.ParseBool(v); err == nil {
			return b
		}
	}
	s.wrong(name, "is neither true nor false")
	return otherwise
}

// number is a whole number from least on; 0 if it is not set.
func (s *settings) number(name string, least int64) int64 {
	text := strings.TrimSpace(s.text(name))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least {
		s.wrong(name, "is no whole number from %d on", least)
	}
	return n
}

// pairs is a mapping of names to templates.
func (s *settings) pairs(name string) map[string]string {
	switch v := s.get(name).(type) {
	case nil:
		return nil
	case map[string]any:
		out := map[string]string{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			text, ok := v[k].(string)
			if !ok {
				s.wrong(name, "has %q, which is no text", k)
				return nil
			}
			changed, err := s.texts.rewrite(text)
			if err != nil {
				s.wrong(name, "has in %q a template that cannot be used: %v", k, err)
			}
			out[k] = changed
		}
		return out
	}
	s.wrong(name, "is no mapping")
	return nil
}

// within is the settings below name, held to the same rules.
func (s *settings) within(name string, use func(*settings)) {
	switch v := s.get(name).(type) {
	case nil:
	case map[string]any:
		in := &settings{receiver: s.receiver, kind: s.kind, values: v, looked: map[string]bool{}, texts: s.texts}
		use(in)
		in.rest(name + ".")
		if s.problem == nil {
			s.problem = in.problem
		}
	default:
		s.wrong(name, "is no mapping")
	}
}

// without refuses settings that ask for what is not done here, unless they ask for nothing.
func (s *settings) without(why string, names ...string) {
	for _, name := range names {
		if asks(s.get(name)) {
			s.wrong(name, "cannot be honoured: %s", why)
		}
	}
}

// rest refuses the settings that nobody looked at and that are not empty.
func (s *settings) rest(prefix string) {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if !s.looked[name] && asks(s.values[name]) {
			s.wrong(prefix+name, "is not known to this server")
		}
	}
}

// asks says whether a value asks for something.
func asks(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case bool:
		return v
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

// grafanaIntegration is one integration of a receiver as Grafana writes it.
type grafanaIntegration struct {
	UID             string            `json:"uid"`
	Name            string            `json:"name"`
	Type            string            `json:"type"`
	Version         string            `json:"version"`
	DisableResolved bool              `json:"disableResolveMessage"`
	Settings        json.RawMessage   `json:"settings"`
	Secure          map[string]string `json:"secureSettings"`
	Provenance      json.RawMessage   `json:"provenance"`
}

// read returns the settings of an integration, the secure ones among them; those with dots are below
// others.
func (g *grafanaIntegration) read(receiver string, texts *grafanaTexts) (*settings, error) {
	s := &settings{receiver: receiver, kind: g.Type, values: map[string]any{}, looked: map[string]bool{}, texts: texts}
	if len(g.Settings) > 0 {
		dec := json.NewDecoder(bytes.NewReader(g.Settings))
		dec.UseNumber()
		if err := dec.Decode(&s.values); err != nil {
			return nil, errs.New(errs.Invalid, "receiver %q: type %s: the settings are no mapping", receiver, g.Type)
		}
		if s.values == nil {
			s.values = map[string]any{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Secure)) {
		if g.Secure[name] == "" {
			continue
		}
		at, parts := s.values, strings.Split(name, ".")
		for _, part := range parts[:len(parts)-1] {
			below, ok := at[part].(map[string]any)
			if !ok {
				below = map[string]any{}
				at[part] = below
			}
			at = below
		}
		at[parts[len(parts)-1]] = g.Secure[name]
	}
	return s, nil
}

// secrets collects what of an integration must not be shown: the secure settings, and settings that are
// secrets whatever they were sent as.
func (g *grafanaIntegration) secrets() []string {
	var out []string
	for _, v := range g.Secure {
		out = append(out, v)
	}
	var open any
	if json.Unmarshal(g.Settings, &open) == nil {
		out = append(out, confidential("", open)...)
	}
	var forms []string
	for _, v := range out {
		forms = append(forms, v, url.QueryEscape(v), url.PathEscape(v))
		if u, err := url.Parse(v); err == nil && u.Host != "" && len(u.RequestURI()) > 1 {
			forms = append(forms, u.String(), u.RequestURI(), u.EscapedPath())
		}
	}
	return forms
}

// confidential returns the values below name whose names say that they are secret.
func confidential(name string, v any) []string {
	var out []string
	switch v := v.(type) {
	case string:
		name = strings.ToLower(name)
		for _, word := range []string{"url", "token", "key", "password", "secret", "credentials"} {
			if strings.Contains(name, word) {
				return []string{v}
			}
		}
	case []any:
		for _, one := range v {
			out = append(out, confidential(name, one)...)
		}
	case map[string]any:
		for k, one := range v {
			out = append(out, confidential(k, one)...)
		}
	}
	return out
}

const (
	// leastSecret is how long a text is that is worth hiding: shorter ones are part of everything.
	leastSecret = 4
	// maxProblem bounds what is said of a failure, which may quote the answer of a receiver.
	maxProblem = 1 << 10
)

// hidden is text without secrets, shortened.
func hidden(text string, secrets []string) string {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // what contains another first
	for _, s := range secrets {
		if len(s) >= leastSecret {
			text = strings.ReplaceAll(text, s, "<secret>")
		}
	}
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "..."
	}
	return text
}
