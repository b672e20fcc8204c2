package alertmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"
	texttree "text/template/parse"

	"github.com/prometheus/alertmanager/template"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/templates"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// newTemplate parses the built-in templates and those of d. Templates that d does not use are parsed
// too, so that a mistake in one shows when it is put and not when it is used. Errors: Invalid.
func newTemplate(d *definition, id tenant.ID, external *url.URL) (*template.Template, error) {
	for name, text := range d.Templates {
		if _, err := parseTemplates(id, external, map[string]string{name: text}, []string{name}); err != nil {
			return nil, err
		}
	}
	if err := templates.Check(slices.Collect(maps.Values(d.Templates)), templated(document(d.Config), nil)); err != nil {
		return nil, err
	}
	return parseTemplates(id, external, d.Templates, d.used)
}

// templated appends the texts below n that are templates.
func templated(n *yaml.Node, texts []string) []string {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "{{") {
		return append(texts, n.Value)
	}
	for _, c := range n.Content {
		texts = templated(c, texts)
	}
	return texts
}

// builtIn returns upstream's templates by name, as they are parsed. All tenants share them: to parse them for
// each would take most of the time that it takes to start a tenant.
var builtIn = sync.OnceValues(func() (map[string]*texttree.Tree, error) {
	var all *texttemplate.Template
	if _, err := template.FromGlobs(nil, func(text *texttemplate.Template, _ *htmltemplate.Template) { all = text }); err != nil {
		return nil, err
	}
	out := map[string]*texttree.Tree{}
	for _, t := range all.Templates() {
		if t.Name() != "" && t.Tree != nil {
			out[t.Name()] = t.Tree
		}
	}
	return out, nil
})

func parseTemplates(id tenant.ID, external *url.URL, files map[string]string, names []string) (*template.Template, error) {
	funcs := templateFuncs(string(id))
	ready, err := builtIn()
	var wrong error
	out, made := template.New(func(text *texttemplate.Template, html *htmltemplate.Template) {
		text.Funcs(funcs)
		html.Funcs(funcs)
		for name, tree := range ready {
			_, textErr := text.AddParseTree(name, tree)
			_, htmlErr := html.AddParseTree(name, tree.Copy()) // escaping changes it
			wrong = errors.Join(wrong, textErr, htmlErr)
		}
	})
	if err = errors.Join(err, wrong, made); err != nil {
		return nil, fmt.Errorf("built-in templates: %w", err)
	}
	for _, name := range names {
		if err := out.Parse(strings.NewReader(files[name])); err != nil {
			return nil, errs.New(errs.Invalid, "template_files: %s: %w", name, err)
		}
	}
	out.ExternalURL = external
	return out, nil
}

// queryFromGeneratorURL returns the expression in the link of an alert to its query.
func queryFromGeneratorURL(link string) (string, error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("generator URL: %w", err)
	}
	q := u.Query().Get("g0.expr")
	if q == "" {
		return "", errors.New("the generator URL has no expression g0.expr")
	}
	return q, nil
}

// grafanaExploreURL returns a link to a query in the Explore view of a Grafana.
func grafanaExploreURL(grafana, datasource, from, to, expr string) (string, error) {
	type query struct {
		Datasource map[string]string `json:"datasource"`
		Expr       string            `json:"expr"`
		Instant    bool              `json:"instant"`
		Range      bool              `json:"range"`
		RefID      string            `json:"refId"`
	}
	panes, err := json.Marshal(map[string]any{"a": map[string]any{
		"datasource": datasource,
		"queries":    []query{{map[string]string{"type": "prometheus", "uid": datasource}, expr, false, true, "A"}},
		"range":      map[string]string{"from": from, "to": to},
	}})
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(grafana, "/") + "/explore?schemaVersion=1&panes=" + url.QueryEscape(string(panes)), nil
}
