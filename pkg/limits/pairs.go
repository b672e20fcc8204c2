package limits

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Labels are names with values. The zero value has none.
type Labels struct{ set labels.Labels }

// Labels returns them sorted by name.
func (l *Labels) Labels() labels.Labels { return l.set }

// Node is part of Structured.
func (l *Labels) Node() *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	if l.set.IsEmpty() {
		m.Style = yaml.FlowStyle
	}
	l.set.Range(func(x labels.Label) { m.Content = append(m.Content, node(x.Name), node(x.Value)) })
	return m
}

// readLabels reads a mapping of names to values.
func readLabels(doc *strict.Doc, n *yaml.Node, path string) (*Labels, bool) {
	if n != nil && n.Kind != yaml.MappingNode && n.Kind != yaml.AliasNode && !strict.IsNull(n) {
		doc.Problems.Add(doc.Where(n.Line), "%s: wants names with values below it, but has %s", path, strict.Shape(n))
		return nil, false
	}
	b, ok := labels.NewScratchBuilder(0), true
	for _, e := range doc.Entries(n, path) {
		value, good := doc.Text(e.Value, path+"."+e.Key, "text")
		if !model.UTF8Validation.IsValidLabelName(e.Key) || e.Key == model.MetricNameLabel {
			doc.Problems.Add(doc.Where(e.Line), "%s: %q is no name of a label", path, e.Key)
			good = false
		}
		b.Add(e.Key, value)
		ok = ok && good
	}
	b.Sort()
	return &Labels{b.Labels()}, ok
}
