package ruler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/templates"
)

// Group is a rule group as its owner wrote it.
type Group struct {
	rulefmt.RuleGroup `yaml:",inline"`
	// SourceTenants are whose series the rules read; empty: the owner's own.
	SourceTenants []string `yaml:"source_tenants,omitempty"`
	// EvaluationDelay is the former name of QueryOffset.
	EvaluationDelay *model.Duration `yaml:"evaluation_delay,omitempty"`
	// AlignEvaluationTime evaluates at multiples of the interval.
	AlignEvaluationTime bool `yaml:"align_evaluation_time_on_interval,omitempty"`
}

// file is the shape of a namespace.
type file struct {
	Groups []Group `yaml:"groups"`
}

// ruleNodes are the rules of a group with their places in the text.
type ruleNodes struct {
	Rules []rulefmt.RuleNode `yaml:"rules"`
}

// document is a namespace: what was put, byte for byte, is read into it, and it can be written again
// with other groups.
type document struct {
	groups []Group
	nodes  []*yaml.Node // of the groups, in their order
	// aliases says that a part of the text refers to another, so that a group cannot be cut out of it.
	aliases bool
}

// goTypes are what the decoder adds to its complaints and nobody who wrote YAML can use.
var goTypes = regexp.MustCompile(` (in type|into) [\w.\[\]*]+`)

// decode reads one YAML document strictly into v. Errors: Invalid, with lines.
func decode(data []byte, v any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "%s", goTypes.ReplaceAllString(err.Error(), ""))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "only one YAML document is allowed")
	}
	return nil
}

// parseDocument reads a namespace without a look at what its rules say. Errors: Invalid.
func parseDocument(data []byte) (*document, error) {
	data = inner(data)
	var f file
	if err := decode(data, &f); err != nil {
		return nil, err
	}
	d := &document{groups: f.Groups}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if err := tidy(&root, false); err != nil {
		return nil, err
	}
	if root.Kind == yaml.DocumentNode {
		d.aliases = hasAlias(&root)
		if list := field(root.Content[0], "groups"); list != nil && list.Kind == yaml.SequenceNode {
			d.nodes = list.Content
		}
	}
	if d.aliases || len(d.nodes) != len(d.groups) {
		d.nodes = make([]*yaml.Node, len(d.groups))
		for i := range d.groups {
			d.nodes[i] = new(yaml.Node)
			if err := d.nodes[i].Encode(d.groups[i]); err != nil {
				return nil, errs.Wrap(errs.Invalid, err)
			}
		}
	}
	return d, nil
}

// parseGroup reads one group. Errors: Invalid.
func parseGroup(data []byte) (Group, *yaml.Node, error) {
	var g Group
	if err := decode(data, &g); err != nil {
		return g, nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return g, nil, errs.Wrap(errs.Invalid, err)
	}
	if err := tidy(&root, false); err != nil {
		return g, nil, err
	}
	if root.Kind != yaml.DocumentNode {
		return g, nil, errs.New(errs.Invalid, "the rule group is empty")
	}
	n := root.Content[0]
	if hasAlias(n) {
		n = new(yaml.Node)
		if err := n.Encode(g); err != nil {
			return g, nil, errs.Wrap(errs.Invalid, err)
		}
	}
	return g, n, nil
}

// tidy refuses keys that are null, which the decoder passes over with their values, and spells out values that are
// null within braces or brackets (flow), which would be written as empty texts. Errors: Invalid.
func tidy(n *yaml.Node, flow bool) error {
	flow = flow || n.Style&yaml.FlowStyle != 0
	for i, child := range n.Content {
		if child.Kind == yaml.ScalarNode && child.ShortTag() == "!!null" {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				return errs.New(errs.Invalid, "line %d: a key is null; if that is its name, it must be in quotes", child.Line)
			}
			if flow && child.Value == "" {
				child.Value = "null"
			}
		}
		if err := tidy(child, flow); err != nil {
			return err
		}
	}
	return nil
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// field returns the value of a key of a mapping, or nil.
func field(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// find returns the place of a group, -1 if there is none.
func (d *document) find(name string) int {
	return slices.IndexFunc(d.groups, func(g Group) bool { return g.Name == name })
}

// set puts g in the place of the group of its name, or at the end.
func (d *document) set(g Group, n *yaml.Node) {
	if i := d.find(g.Name); i >= 0 {
		d.groups[i], d.nodes[i] = g, n
		return
	}
	d.groups, d.nodes = append(d.groups, g), append(d.nodes, n)
}

// remove takes the group at i out.
func (d *document) remove(i int) {
	d.groups, d.nodes = slices.Delete(d.groups, i, i+1), slices.Delete(d.nodes, i, i+1)
}

// list returns the groups as YAML.
func (d *document) list() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Content: d.nodes} }

// bytes returns d as the text of a namespace.
func (d *document) bytes() ([]byte, error) {
	return marshal(mapping("groups", d.list()))
}

// mapping returns a mapping of one key.
func mapping(key string, value *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text(key), value}}
}

// text returns s as YAML that is read as text again.
func text(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	if n.Style == 0 { // a name like 1 or true
		_ = n.Encode(s) // text is always encoded
	}
	return n
}

func marshal(n *yaml.Node) ([]byte, error) {
	out, err := yaml.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("write rules as YAML: %w", err)
	}
	return out, nil
}

// check returns all that is wrong with what groups say, a line each. Errors: Invalid.
func (d *document) check(scheme model.ValidationScheme, p parser.Parser) error {
	var problems []string
	seen := map[string]bool{}
	for i, g := range d.groups {
		if seen[g.Name] {
			problems = append(problems, fmt.Sprintf("%d:%d: groupname: %q is repeated in the same namespace", d.nodes[i].Line, d.nodes[i].Column, g.Name))
		}
		seen[g.Name] = true
		problems = append(problems, checkGroup(g, d.nodes[i], scheme, p)...)
	}
	return joined(problems)
}

// mostProblems bounds how many mistakes one answer lists.
const mostProblems = 50

func joined(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	if more := len(problems) - mostProblems; more > 0 {
		problems = append(problems[:mostProblems], fmt.Sprintf("and %d more", more))
	}
	return errs.New(errs.Invalid, "%s", strings.Join(problems, "\n"))
}

// checkGroup returns what is wrong with g, each with its line and column where they are known.
func checkGroup(g Group, n *yaml.Node, scheme model.ValidationScheme, p parser.Parser) []string {
	var problems []string
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%d:%d: group %q: ", n.Line, n.Column, g.Name)+fmt.Sprintf(format, args...))
	}
	if g.Name == "" {
		problems = append(problems, fmt.Sprintf("%d:%d: Groupname must not be empty", n.Line, n.Column))
	}
	if len(g.Rules) == 0 {
		wrong("it has no rules")
	}
	if g.Limit < 0 {
		wrong("limit must not be negative")
	}
	if g.QueryOffset != nil && g.EvaluationDelay != nil && *g.QueryOffset != *g.EvaluationDelay {
		wrong("evaluation_delay is the former name of query_offset; the two must not differ")
	}
	for k, v := range g.Labels {
		if !scheme.IsValidLabelName(k) || k == model.MetricNameLabel || !model.LabelValue(v).IsValid() {
			wrong("invalid label %s=%q", k, v)
		}
	}
	var places ruleNodes
	if err := n.Decode(&places); err != nil || len(places.Rules) != len(g.Rules) {
		places.Rules = make([]rulefmt.RuleNode, len(g.Rules))
	}
	for i, r := range g.Rules {
		for _, problem := range r.Validate(places.Rules[i], scheme, p) {
			e := rulefmt.Error{Group: g.Name, Rule: i + 1, RuleName: r.Alert + r.Record, Err: problem}
			problems = append(problems, e.Error())
		}
		if err := templates.Check(nil, slices.Concat(slices.Collect(maps.Values(r.Labels)), slices.Collect(maps.Values(r.Annotations)))); err != nil {
			wrong("rule %d, %q: %v", i+1, r.Alert+r.Record, err)
		}
	}
	return problems
}
