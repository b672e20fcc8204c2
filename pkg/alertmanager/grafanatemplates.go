package alertmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	texttemplate "text/template"
	texttree "text/template/parse"

	"github.com/prometheus/alertmanager/template"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The annotations in which Grafana sends what alerts have beside labels and annotations.
const (
	noteDashboard   = "__dashboardUid__"
	notePanel       = "__panelId__"
	noteOrg         = "__orgId__"
	noteValues      = "__values__"
	noteValueString = "__value_string__"
	labelOfRule     = "__alert_rule_uid__"
)

// grafanaTexts rewrites templates of Grafana for upstream's data.
type grafanaTexts struct {
	external string // address of the Grafana
	smtp     grafanaSMTP
}

// grafanaDefaults returns the templates that Grafana's settings name, by name.
func grafanaDefaults() map[string]string {
	const same = `{{ template "default.message" . }}`
	return map[string]string{
		"default.title": `{{ template "__subject" . }}`,
		"default.message": `{{ with .Alerts.Firing }}Firing ({{ len . }}):
{{ template "__grafana_alerts" . }}{{ end }}{{ with .Alerts.Resolved }}Resolved ({{ len . }}):
{{ template "__grafana_alerts" . }}{{ end }}`,
		"__grafana_alerts": `{{ range . }}
{{ with .Annotations.summary }}{{ . }}
{{ end }}{{ with .Annotations.description }}{{ . }}
{{ end }}{{ with grafanaAlert "ValueString" "" . }}Value: {{ . }}
{{ end }}Labels:
{{ range .Labels.SortedPairs }}{{ if not (match "^__.*__$" .Name) }} - {{ .Name }} = {{ .Value }}
{{ end }}{{ end }}{{ with .GeneratorURL }}Source: {{ . }}
{{ end }}{{ end }}`,
		"slack.default.text":    same,
		"teams.default.message": same,
	}
}

// defaultsFile is the name of the file with grafanaDefaults; others are numbered.
const defaultsFile = "grafana.tmpl"

// files returns template files that upstream can load. Errors: Invalid.
func (g *grafanaTexts) files(in map[string]string) (map[string]string, error) {
	out, missing := map[string]string{}, grafanaDefaults()
	for i, name := range slices.Sorted(maps.Keys(in)) {
		text, err := g.rewrite(in[name])
		if err != nil {
			return nil, errs.New(errs.Invalid, "template %q of Grafana: %w", name, err)
		}
		out[fmt.Sprintf("%04d.tmpl", i)] = text
		t, err := parseGrafana(in[name])
		if err != nil {
			return nil, errs.New(errs.Invalid, "template %q of Grafana: %w", name, err)
		}
		for _, own := range t.Templates() {
			delete(missing, own.Name())
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		fmt.Fprintf(&b, "{{ define %q }}%s{{ end }}\n", name, missing[name])
	}
	out[defaultsFile] = b.String()
	return out, nil
}

// templateFuncs are the functions that templates have beside upstream's.
func templateFuncs(tenant string) map[string]any {
	return map[string]any{"tenantID": func() string { return tenant }, "queryFromGeneratorURL": queryFromGeneratorURL,
		"grafanaExploreURL": grafanaExploreURL, "grafanaAlert": grafanaAlert}
}

// parseGrafana parses a text with all functions that there are.
func parseGrafana(text string) (*texttemplate.Template, error) {
	return texttemplate.New("").Funcs(templateFuncs("")).Funcs(texttemplate.FuncMap(template.DefaultFuncs)).Parse(text)
}

// rewrite returns a text in which fields that only Grafana's alerts have are calls that compute them. One
// that has none is returned as it is. Errors: those of the text, or a field that cannot be computed.
func (g *grafanaTexts) rewrite(text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := parseGrafana(text)
	if err != nil {
		return "", err
	}
	r := &rewriter{external: g.external}
	var b strings.Builder
	all := t.Templates()
	slices.SortFunc(all, func(a, b *texttemplate.Template) int { return strings.Compare(a.Name(), b.Name()) })
	for _, one := range all {
		if one.Tree == nil || one.Tree.Root == nil {
			continue
		}
		r.list(one.Root)
		if one.Name() != "" {
			fmt.Fprintf(&b, "{{define %q}}%s{{end}}", one.Name(), one.Root)
		}
	}
	if r.problem != nil || !r.changed {
		return text, r.problem
	}
	if t.Tree != nil && t.Root != nil {
		b.WriteString(t.Root.String())
	}
	return b.String(), nil
}

// rewriter changes trees in place.
type rewriter struct {
	external string
	changed  bool
	problem  error
}

func (r *rewriter) list(l *texttree.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *texttree.TextNode:
			// A brace before an action would be read as a part of it.
			if bare := strings.TrimRight(string(n.Text), "{"); len(bare) < len(n.Text) {
				n.Text = fmt.Appendf(nil, "%s{{%q}}", bare, n.Text[len(bare):])
			}
		case *texttree.ActionNode:
			r.pipe(n.Pipe)
		case *texttree.TemplateNode:
			r.pipe(n.Pipe)
		case *texttree.IfNode:
			r.branch(&n.BranchNode)
		case *texttree.WithNode:
			r.branch(&n.BranchNode)
		case *texttree.RangeNode:
			r.branch(&n.BranchNode)
		}
	}
}

func (r *rewriter) branch(b *texttree.BranchNode) {
	r.pipe(b.Pipe)
	r.list(b.List)
	r.list(b.ElseList)
}

func (r *rewriter) pipe(p *texttree.PipeNode) {
	if p == nil {
		return
	}
	for _, c := range p.Cmds {
		for i := range c.Args {
			c.Args[i] = r.arg(c.Args[i])
		}
	}
}

// arg returns what stands for an operand.
func (r *rewriter) arg(n texttree.Node) texttree.Node {
	switch n := n.(type) {
	case *texttree.PipeNode:
		r.pipe(n)
	case *texttree.FieldNode:
		return r.fields(nil, n.Ident, n)
	case *texttree.VariableNode:
		return r.fields(&texttree.VariableNode{NodeType: texttree.NodeVariable, Ident: n.Ident[:1]}, n.Ident[1:], n)
	case *texttree.ChainNode:
		n.Node = r.arg(n.Node)
		return r.fields(n.Node, n.Field, n)
	}
	return n
}

// fields rewrites the first of names that is Grafana's, and so the ones after it; from is what they are
// fields of, nil for the dot.
func (r *rewriter) fields(from texttree.Node, names []string, whole texttree.Node) texttree.Node {
	for i, name := range names {
		switch name {
		case "ImageURL", "EmbeddedImage":
			r.problem = errors.Join(r.problem, fmt.Errorf(".%s cannot be honoured: notifications have no images", name))
			return whole
		case "Values", "ValueString", "SilenceURL", "DashboardURL", "PanelURL", "OrgID":
		default:
			continue
		}
		r.changed = true
		of := from
		switch {
		case i > 0 && of == nil:
			of = &texttree.FieldNode{NodeType: texttree.NodeField, Ident: names[:i]}
		case i > 0:
			of = &texttree.ChainNode{NodeType: texttree.NodeChain, Node: of, Field: names[:i]}
		case of == nil:
			of = &texttree.DotNode{NodeType: texttree.NodeDot}
		}
		call := &texttree.CommandNode{NodeType: texttree.NodeCommand, Args: []texttree.Node{texttree.NewIdentifier("grafanaAlert"), quotedNode(name), quotedNode(r.external), of}}
		pipe := &texttree.PipeNode{NodeType: texttree.NodePipe, Cmds: []*texttree.CommandNode{call}}
		if i+1 == len(names) {
			return pipe
		}
		return &texttree.ChainNode{NodeType: texttree.NodeChain, Node: pipe, Field: names[i+1:]}
	}
	return whole
}

func quotedNode(text string) *texttree.StringNode {
	return &texttree.StringNode{NodeType: texttree.NodeString, Quoted: fmt.Sprintf("%q", text), Text: text}
}

// grafanaAlert is the field of an alert that Grafana's templates have beside upstream's, of the Grafana at
// the address external. Values are those of names and pairs, too.
func grafanaAlert(field, external string, of any) (any, error) {
	switch v := of.(type) {
	case template.Alert:
		return fieldOfAlert(field, strings.TrimSuffix(external, "/"), v)
	case *template.Alert:
		return fieldOfAlert(field, strings.TrimSuffix(external, "/"), *v)
	case template.KV:
		if field == "Values" {
			return v.Values(), nil
		}
	case template.Pairs:
		if field == "Values" {
			return v.Values(), nil
		}
	}
	return nil, fmt.Errorf("there is no %s of a %T", field, of)
}

func fieldOfAlert(field, external string, a template.Alert) (any, error) {
	org := a.Annotations[noteOrg]
	query := url.Values{}
	if org != "" {
		query.Set("orgId", org)
	}
	switch field {
	case "Values":
		out := map[string]float64{}
		if text := a.Annotations[noteValues]; text != "" {
			if err := json.Unmarshal([]byte(text), &out); err != nil {
				return nil, errors.New("the values of the alert cannot be read")
			}
		}
		return out, nil
	case "ValueString":
		return a.Annotations[noteValueString], nil
	case "OrgID":
		return org, nil
	case "SilenceURL":
		query.Set("alertmanager", "grafana")
		for _, p := range a.Labels.SortedPairs() {
			if p.Name == labelOfRule || !strings.HasPrefix(p.Name, "__") {
				query.Add("matcher", p.Name+"="+p.Value)
			}
		}
		return external + "/alerting/silence/new?" + query.Encode(), nil
	}
	dashboard, panel := a.Annotations[noteDashboard], a.Annotations[notePanel]
	if dashboard == "" || field == "PanelURL" && panel == "" {
		return "", nil
	}
	if field == "PanelURL" {
		query.Set("viewPanel", panel)
	}
	link := external + "/d/" + url.PathEscape(dashboard)
	if len(query) > 0 {
		link += "?" + query.Encode()
	}
	return link, nil
}
