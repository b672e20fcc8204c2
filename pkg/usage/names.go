package usage

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// kind is what a name names.
type kind string

// The kinds, as documents have them.
const (
	metricKind  kind = "metrics"
	labelKind   kind = "labels"
	patternKind kind = "patterns" // regular expressions of names of metrics
)

// most is how many names of a kind a tenant may have, and how many bytes each.
func (k kind) most() (names, bytes int) {
	if k == patternKind {
		return maxPatterns, maxPatternBytes
	}
	return maxNames, maxNameBytes
}

// name is one name that was asked for.
type name struct {
	kind kind
	text string
}

// names is what one query or call names.
type names struct {
	list    []name
	unnamed bool // it selects series without saying of which metric
}

func (n *names) label(text string) {
	if text != "" && text != model.MetricNameLabel {
		n.list = append(n.list, name{labelKind, text})
	}
}

func (n *names) metric(text string) { n.list = append(n.list, name{metricKind, text}) }

// selector adds what matchers name. That of data labels, in info(), need not name a metric.
func (n *names) selector(ms []*labels.Matcher, data bool) {
	named := data
	for _, m := range ms {
		switch {
		case m.Name != model.MetricNameLabel:
			n.label(m.Name)
		case m.Type == labels.MatchEqual && m.Value != "":
			n.metric(m.Value)
			named = true
		case m.Type == labels.MatchRegexp:
			named = true
			if set := m.SetMatches(); len(set) > 0 {
				for _, text := range set {
					n.metric(text)
				}
			} else {
				n.list = append(n.list, name{patternKind, m.Value})
			}
		}
	}
	n.unnamed = n.unnamed || !named
}

// namesOf returns what an expression names.
func namesOf(e parser.Expr) *names {
	n := &names{}
	if e == nil {
		return n
	}
	data := map[*parser.VectorSelector]bool{} // selectors of data labels
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch x := node.(type) {
		case *parser.VectorSelector:
			n.selector(x.LabelMatchers, data[x])
		case *parser.AggregateExpr:
			for _, l := range x.Grouping {
				n.label(l)
			}
		case *parser.BinaryExpr:
			if x.VectorMatching != nil {
				for _, l := range append(x.VectorMatching.MatchingLabels[:len(x.VectorMatching.MatchingLabels):len(x.VectorMatching.MatchingLabels)], x.VectorMatching.Include...) {
					n.label(l)
				}
			}
		case *parser.Call:
			n.call(x, data)
		}
		return nil
	})
	return n
}

// call adds the labels that a function reads.
func (n *names) call(c *parser.Call, data map[*parser.VectorSelector]bool) {
	from := len(c.Args) // the first argument that is a label
	switch c.Func.Name {
	case "histogram_quantile", "histogram_quantiles", "histogram_fraction":
		n.label(labels.BucketLabel)
	case "label_replace":
		if len(c.Args) > 3 {
			n.text(c.Args[3])
		}
	case "label_join":
		from = 3
	case "sort_by_label", "sort_by_label_desc":
		from = 1
	case "info":
		n.label("instance")
		n.label("job")
		if len(c.Args) < 2 {
			n.metric("target_info")
		} else if sel, ok := c.Args[1].(*parser.VectorSelector); ok {
			data[sel] = true
			if !named(sel.LabelMatchers) {
				n.metric("target_info")
			}
		}
	}
	for i := from; i < len(c.Args); i++ {
		n.text(c.Args[i])
	}
}

// text adds an argument that is the name of a label.
func (n *names) text(e parser.Expr) {
	if s, ok := e.(*parser.StringLiteral); ok {
		n.label(s.Val)
	}
}

// named says whether matchers say which metrics they are about.
func named(ms []*labels.Matcher) bool {
	for _, m := range ms {
		if m.Name == model.MetricNameLabel {
			return true
		}
	}
	return false
}
