package rulefiles

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Lint lays every expression out as the parser prints it. It returns how many rules it looked at and
// how many it changed.
func (ns *Namespace) Lint() (rules, changed int, err error) {
	err = ns.each(func(r *rule) error {
		rules++
		if text := r.tree.String(); text != *r.expr {
			*r.expr = text
			changed++
		}
		return nil
	})
	return rules, changed, err
}

// Prepare adds label to the labels that aggregations keep, and to those that vector matches are on,
// so that rules keep apart what the label tells apart. Groups for which skip says so are left alone.
func (ns *Namespace) Prepare(label string, skip func(Group) bool) (rules, changed int, err error) {
	err = ns.each(func(r *rule) error {
		rules++
		if skip(*r.group) {
			return nil
		}
		before := r.tree.String()
		parser.Inspect(r.tree, func(n parser.Node, _ []parser.Node) error {
			keep(n, label)
			return nil
		})
		if text := r.tree.String(); text != before {
			*r.expr = text
			changed++
		}
		return nil
	})
	return rules, changed, err
}

// keep adds the label to one node.
func keep(n parser.Node, label string) {
	switch n := n.(type) {
	case *parser.AggregateExpr:
		if !n.Without && !slices.Contains(n.Grouping, label) && n.Op != parser.COUNT_VALUES {
			n.Grouping = append(n.Grouping, label)
		}
		if n.Without {
			n.Grouping = slices.DeleteFunc(n.Grouping, func(l string) bool { return l == label })
		}
	case *parser.BinaryExpr:
		if n.VectorMatching == nil {
			return
		}
		if n.VectorMatching.On && !slices.Contains(n.VectorMatching.MatchingLabels, label) {
			n.VectorMatching.MatchingLabels = append(n.VectorMatching.MatchingLabels, label)
		}
		if !n.VectorMatching.On {
			n.VectorMatching.MatchingLabels = slices.DeleteFunc(n.VectorMatching.MatchingLabels, func(l string) bool { return l == label })
		}
	}
}

// rule is one rule as changes see it.
type rule struct {
	group *Group
	expr  *string
	tree  parser.Expr
}

func (ns *Namespace) each(do func(*rule) error) error {
	p := Parser()
	for i := range ns.Groups {
		for j := range ns.Groups[i].Rules {
			r := rule{group: &ns.Groups[i], expr: &ns.Groups[i].Rules[j].Expr}
			var err error
			if r.tree, err = p.ParseExpr(*r.expr); err != nil {
				return fmt.Errorf("namespace %q, group %q, rule %d: %w", ns.Name, r.group.Name, j+1, err)
			}
			if err := do(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

// recordName is how recording rules are named: level, metric, operations.
var recordName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*(:[a-zA-Z0-9_]+){2,}$`)

// Check returns what speaks against the rules of all namespaces: names of recording rules that do not
// say level:metric:operations, which are only an opinion unless strict, and rules that would write
// the same series or alert.
func (s Set) Check() (opinions, faults []string) {
	for _, name := range s.Names() {
		for _, g := range s[name].Groups {
			seen := map[string]bool{}
			for _, r := range g.Rules {
				if r.Record != "" && !recordName.MatchString(r.Record) {
					opinions = append(opinions, fmt.Sprintf("%s/%s: the recording rule %s is not named level:metric:operations", name, g.Name, r.Record))
				}
				key := r.Alert + r.Record + labels.FromMap(r.Labels).String()
				if seen[key] {
					faults = append(faults, fmt.Sprintf("%s/%s: %s%s stands twice with the same labels", name, g.Name, r.Alert, r.Record))
				}
				seen[key] = true
			}
		}
	}
	return opinions, faults
}

// Metrics returns the names of the metrics that an expression reads, in order.
func Metrics(expr string) ([]string, error) {
	tree, err := Parser().ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range v.LabelMatchers {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				found[m.Value] = true
			}
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchRegexp && len(m.SetMatches()) > 0 {
				for _, name := range m.SetMatches() {
					found[name] = true
				}
			}
		}
		return nil
	})
	delete(found, "")
	names := slices.Sorted(maps.Keys(found))
	return slices.DeleteFunc(names, func(n string) bool { return strings.TrimSpace(n) == "" }), nil
}
