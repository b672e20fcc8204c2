package limits

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Tracker counts the active series that a selector matches, under a name.
type Tracker struct {
	Name     string
	Selector string
	Matchers []*labels.Matcher
}

// Trackers are trackers sorted by name. The zero value has none.
type Trackers struct{ list []Tracker }

// List returns the trackers, which must not be changed.
func (t *Trackers) List() []Tracker { return t.list }

// With returns t and more; of two of one name the one of more counts.
func (t *Trackers) With(more *Trackers) *Trackers {
	if len(more.list) == 0 {
		return t
	}
	out := &Trackers{list: slices.Clone(more.list)}
	for _, x := range t.list {
		if !slices.ContainsFunc(more.list, func(y Tracker) bool { return y.Name == x.Name }) {
			out.list = append(out.list, x)
		}
	}
	out.sort()
	return out
}

// First returns the first n trackers by name.
func (t *Trackers) First(n int) *Trackers {
	if len(t.list) <= n {
		return t
	}
	return &Trackers{list: t.list[:n]}
}

func (t *Trackers) sort() {
	slices.SortFunc(t.list, func(a, b Tracker) int { return cmp.Compare(a.Name, b.Name) })
}

// Node is part of Structured.
func (t *Trackers) Node() *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	if len(t.list) == 0 {
		m.Style = yaml.FlowStyle
	}
	for _, x := range t.list {
		m.Content = append(m.Content, node(x.Name), node(x.Selector))
	}
	return m
}

// readTrackers reads a mapping of names to selectors. The text form of a flag may also be
// name:selector;name:selector.
func readTrackers(doc *strict.Doc, n *yaml.Node, path string) (out *Trackers, ok bool) {
	out, ok = &Trackers{}, true
	add := func(line int, name, selector string) {
		t, err := newTracker(name, selector)
		if err != nil {
			doc.Problems.Add(doc.Where(line), "%s: %v", path, err)
			ok = false
			return
		}
		out.list = append(out.list, t)
	}
	if n != nil && n.Kind == yaml.ScalarNode && !strict.IsNull(n) {
		for _, part := range unquotedFields(n.Value) {
			name, selector, _ := strings.Cut(part, ":")
			add(n.Line, strings.TrimSpace(name), selector)
		}
	} else {
		if n != nil && n.Kind != yaml.MappingNode && n.Kind != yaml.AliasNode && !strict.IsNull(n) {
			doc.Problems.Add(doc.Where(n.Line), "%s: wants names with selectors below it, but has %s", path, strict.Shape(n))
			return nil, false
		}
		for _, e := range doc.Entries(n, path) {
			selector, good := doc.Text(e.Value, path+"."+e.Key, "a selector")
			if !good {
				ok = false
				continue
			}
			add(e.Line, e.Key, selector)
		}
	}
	out.sort()
	for k := 1; k < len(out.list); k++ {
		if out.list[k].Name == out.list[k-1].Name {
			doc.Problems.Add(doc.Where(n.Line), "%s: tracker %s occurs twice", path, out.list[k].Name)
			ok = false
		}
	}
	return out, ok
}

func newTracker(name, selector string) (Tracker, error) {
	if name == "" {
		return Tracker{}, fmt.Errorf("tracker with the selector %q has no name", selector)
	}
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	if err != nil {
		return Tracker{}, fmt.Errorf("tracker %s: selector %q: %w", name, selector, err)
	}
	return Tracker{Name: name, Selector: selector, Matchers: ms}, nil
}

// unquotedFields splits text at semicolons that stand outside of quotes, and leaves empty fields out.
func unquotedFields(text string) []string {
	var out []string
	quote, escaped, from := rune(0), false, 0
	field := func(to int) {
		if f := strings.TrimSpace(text[from:to]); f != "" {
			out = append(out, f)
		}
	}
	for at, c := range text {
		switch {
		case escaped:
			escaped = false
		case quote != 0 && c == '\\' && quote != '`':
			escaped = true
		case c == quote:
			quote = 0
		case quote == 0 && strings.ContainsRune("\"'`", c):
			quote = c
		case quote == 0 && c == ';':
			field(at)
			from = at + 1
		}
	}
	field(len(text))
	return out
}
