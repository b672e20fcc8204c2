package limits

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// maxRetentionRules bounds the rules that every series of a query is held against.
const maxRetentionRules = 64

// RetentionRule says how long the samples of the series that a selector matches stay. 0: for ever.
type RetentionRule struct {
	Selector string
	Matchers []*labels.Matcher
	Period   time.Duration
}

// RetentionRules are rules in the order in which they are tried: the first that matches counts.
type RetentionRules struct{ list []RetentionRule }

// List returns the rules, which must not be changed.
func (r *RetentionRules) List() []RetentionRule { return r.list }

// Node is part of Structured.
func (r *RetentionRules) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.SequenceNode}
	if len(r.list) == 0 {
		out.Style = yaml.FlowStyle
	}
	for _, x := range r.list {
		out.Content = append(out.Content, &yaml.Node{Kind: yaml.MappingNode,
			Content: []*yaml.Node{node("selector"), node(x.Selector), node("period"), node(x.Period)}})
	}
	return out
}

// readRetentionRules reads a list of {selector, period}.
func readRetentionRules(doc *strict.Doc, n *yaml.Node, path string) (*RetentionRules, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	if len(items) > maxRetentionRules {
		doc.Problems.Add(doc.Where(n.Line), "%s: %d rules are more than %d", path, len(items), maxRetentionRules)
		return nil, false
	}
	out := &RetentionRules{}
	for k, item := range items {
		at := path + "[" + strconv.Itoa(k) + "]"
		x, good := readRetentionRule(doc, item, at)
		if good && slices.ContainsFunc(out.list, func(o RetentionRule) bool { return o.Selector == x.Selector }) {
			doc.Problems.Add(doc.Where(item.Line), "%s: the selector %s occurs twice", at, x.Selector)
			good = false
		}
		out.list, ok = append(out.list, x), ok && good
	}
	return out, ok
}

func readRetentionRule(doc *strict.Doc, n *yaml.Node, path string) (x RetentionRule, ok bool) {
	ok = true
	period := false
	for _, e := range doc.Entries(n, path) {
		at := path + "." + e.Key
		text, good := doc.Text(e.Value, at, "text")
		var err error
		switch e.Key {
		case "selector":
			x.Selector = text
			x.Matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		case "period":
			period = true
			if x.Period, err = config.ParseDuration(text); err == nil && x.Period < 0 {
				err = strconv.ErrRange
			}
		default:
			doc.Problems.Add(doc.Where(e.Line), "%s: unknown key %q%s", path, e.Key, strict.Suggest(e.Key, []string{"selector", "period"}))
			ok = false
			continue
		}
		if good && err != nil {
			doc.Problems.Add(doc.Where(e.Line), "%s: %q: %v", at, text, err)
		}
		ok = ok && good && err == nil
	}
	if ok && (x.Selector == "" || !period) {
		doc.Problems.Add(doc.Where(n.Line), "%s: a rule needs a selector and a period", path)
		ok = false
	}
	return x, ok
}
