package limits

import (
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Relabeling is rules as in the metric_relabel_configs of Prometheus. The zero value has none.
type Relabeling struct {
	rules []relabel.Config
	text  string
}

// Rules returns the rules for names of the given scheme. The caller owns them.
func (r *Relabeling) Rules(scheme model.ValidationScheme) []*relabel.Config {
	out := make([]*relabel.Config, len(r.rules))
	for i := range r.rules {
		c := r.rules[i]
		c.NameValidationScheme = scheme
		out[i] = &c
	}
	return out
}

// String returns the rules as text; two that read the same do the same.
func (r *Relabeling) String() string {
	if len(r.rules) == 0 {
		return "[]"
	}
	return r.text
}

// Node is part of Structured. Fields with their default are left out.
func (r *Relabeling) Node() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	if len(r.rules) == 0 {
		list.Style = yaml.FlowStyle
	}
	def := &relabel.DefaultRelabelConfig
	for i := range r.rules {
		c := &r.rules[i]
		rule := &yaml.Node{Kind: yaml.MappingNode}
		put := func(name string, value any, given bool) {
			if given {
				rule.Content = append(rule.Content, node(name), node(value))
			}
		}
		var sources []string
		for _, name := range c.SourceLabels {
			sources = append(sources, string(name))
		}
		put("source_labels", sources, len(sources) > 0)
		put("separator", c.Separator, c.Separator != def.Separator)
		put("regex", c.Regex.String(), c.Regex.String() != def.Regex.String())
		put("modulus", int(c.Modulus), c.Modulus != 0)
		put("target_label", c.TargetLabel, c.TargetLabel != "")
		put("replacement", c.Replacement, c.Replacement != def.Replacement)
		put("action", string(c.Action), true)
		list.Content = append(list.Content, rule)
	}
	return list
}

// ParseRelabeling reads a YAML list of rules. Errors: Invalid.
func ParseRelabeling(text string) (*Relabeling, error) {
	var out *Relabeling
	err := config.ReadText(text, func(doc *strict.Doc, n *yaml.Node) (ok bool) {
		out, ok = readRelabeling(doc, n, "rules")
		return ok
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// readRelabeling reads a list of rules.
func readRelabeling(doc *strict.Doc, n *yaml.Node, path string) (*Relabeling, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	out := &Relabeling{rules: make([]relabel.Config, 0, len(items))}
	for i, item := range items {
		c, good := readRule(doc, item, path+"["+strconv.Itoa(i)+"]")
		out.rules, ok = append(out.rules, c), ok && good
	}
	out.text = config.FormatNode(out.Node())
	return out, ok
}

// ruleKeys are the keys of one rule.
func ruleKeys() []string {
	return []string{"source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action"}
}

func readRule(doc *strict.Doc, n *yaml.Node, path string) (c relabel.Config, ok bool) {
	c = relabel.DefaultRelabelConfig
	entries := doc.Entries(n, path)
	if ok = n.Kind == yaml.MappingNode; !ok && strict.IsNull(n) {
		doc.Problems.Add(doc.Where(n.Line), "%s: wants keys below it, but is empty", path)
	}
	for _, e := range entries {
		if !strict.IsNull(e.Value) {
			ok = readRuleKey(doc, e, path+"."+e.Key, &c) && ok
		}
	}
	if !ok {
		return c, false
	}
	// A tenant whose names are more restricted has labels with other names refused when they occur.
	if err := c.Validate(model.UTF8Validation); err != nil {
		doc.Problems.Add(doc.Where(n.Line), "%s: %v", path, err)
		return c, false
	}
	return c, true
}

// readRuleKey sets one field of c.
func readRuleKey(doc *strict.Doc, e strict.Entry, path string, c *relabel.Config) bool {
	if e.Key == "source_labels" {
		names, isList, ok := doc.List(e.Value, path)
		if !isList {
			doc.Problems.Add(doc.Where(e.Line), "%s: wants a list, but has %s", path, strict.Shape(e.Value))
			return false
		}
		c.SourceLabels = make(model.LabelNames, len(names))
		for i, name := range names {
			c.SourceLabels[i] = model.LabelName(name)
		}
		return ok
	}
	text, ok := doc.Text(e.Value, path, "text")
	if !ok {
		return false
	}
	var err error
	switch e.Key {
	case "separator":
		c.Separator = text
	case "regex":
		c.Regex, err = relabel.NewRegexp(text)
	case "modulus":
		c.Modulus, err = strconv.ParseUint(text, 10, 63)
	case "target_label":
		c.TargetLabel = text
	case "replacement":
		c.Replacement = text
	case "action":
		c.Action = relabel.Action(strings.ToLower(text))
		if !knownAction(c.Action) {
			doc.Problems.Add(doc.Where(e.Line), "%s: %q is not one of %s%s", path, text, strings.Join(actions(), ", "), strict.Suggest(text, actions()))
			return false
		}
	default:
		doc.Problems.Add(doc.Where(e.Line), "%s: unknown key%s", path, strict.Suggest(e.Key, ruleKeys()))
		return false
	}
	if err != nil {
		doc.Problems.Add(doc.Where(e.Line), "%s: %v", path, err)
	}
	return err == nil
}

func actions() []string {
	return []string{string(relabel.Replace), string(relabel.Keep), string(relabel.Drop), string(relabel.KeepEqual), string(relabel.DropEqual),
		string(relabel.HashMod), string(relabel.LabelMap), string(relabel.LabelDrop), string(relabel.LabelKeep),
		string(relabel.Lowercase), string(relabel.Uppercase)}
}

func knownAction(a relabel.Action) bool {
	for _, known := range actions() {
		if string(a) == known {
			return true
		}
	}
	return false
}
