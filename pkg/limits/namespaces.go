package limits

import (
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// ByNamespace is a number for each of some namespaces of rules. The zero value has none.
type ByNamespace struct{ numbers map[string]int }

// Of returns the number of a namespace; false if it has none.
func (b *ByNamespace) Of(namespace string) (int, bool) {
	n, ok := b.numbers[namespace]
	return n, ok
}

// Node is part of Structured.
func (b *ByNamespace) Node() *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	if len(b.numbers) == 0 {
		m.Style = yaml.FlowStyle
	}
	for _, name := range slices.Sorted(maps.Keys(b.numbers)) {
		m.Content = append(m.Content, node(name), node(b.numbers[name]))
	}
	return m
}

// readByNamespace reads a mapping of names to numbers.
func readByNamespace(doc *strict.Doc, n *yaml.Node, path string) (*ByNamespace, bool) {
	out, ok := &ByNamespace{numbers: map[string]int{}}, true
	if n != nil && n.Kind != yaml.MappingNode && n.Kind != yaml.AliasNode && !strict.IsNull(n) {
		doc.Problems.Add(doc.Where(n.Line), "%s: wants namespaces with numbers below it, but has %s", path, strict.Shape(n))
		return nil, false
	}
	for _, e := range doc.Entries(n, path) {
		text, good := doc.Text(e.Value, path+"."+e.Key, "an integer")
		x, err := config.ParseInt(text)
		if good && (err != nil || x < 0) {
			doc.Problems.Add(doc.Where(e.Line), "%s.%s: %q is not a number", path, e.Key, text)
			good = false
		}
		out.numbers[e.Key], ok = x, ok && good
	}
	return out, ok
}
