package limits

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// MaxAttributionLabels is the most labels that a tenant's usage may be attributed by: each multiplies
// the number of counters.
const MaxAttributionLabels = 4

// AttributionLabel is a label by whose value usage is attributed, and what it is called there.
type AttributionLabel struct{ Input, Output string }

// AttributionLabels are the labels that usage is attributed by together.
type AttributionLabels struct{ list []AttributionLabel }

// List returns the labels, which must not be changed.
func (a *AttributionLabels) List() []AttributionLabel { return a.list }

// Node is part of Structured.
func (a *AttributionLabels) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.SequenceNode}
	if len(a.list) == 0 {
		out.Style = yaml.FlowStyle
	}
	for _, x := range a.list {
		out.Content = append(out.Content, &yaml.Node{Kind: yaml.MappingNode,
			Content: []*yaml.Node{node("input"), node(x.Input), node("output"), node(x.Output)}})
	}
	return out
}

// Attribution returns the labels that the usage of a tenant with the limits v is attributed by.
func Attribution(v View) []AttributionLabel {
	if list := CostAttributionLabelsStructured.Of(v).List(); len(list) > 0 {
		return list
	}
	var out []AttributionLabel
	for _, name := range CostAttributionLabels.Of(v) {
		out = append(out, AttributionLabel{name, attributionOutput(name)})
	}
	return out
}

// attributionOutput is a label as metrics may call it.
func attributionOutput(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			return c
		}
		return '_'
	}, name)
}

// attributionFault says what is wrong with labels to attribute by, "" if nothing is.
func attributionFault(list []AttributionLabel) string {
	if len(list) > MaxAttributionLabels {
		return "has more than " + strconv.Itoa(MaxAttributionLabels) + " labels"
	}
	var seen []string
	for _, x := range list {
		switch {
		case x.Input == "":
			return "has a label without a name"
		case slices.Contains([]string{"tenant", "tracker", "reason"}, x.Output) || strings.HasPrefix(x.Output, "__"):
			return "calls a label " + strconv.Quote(x.Output) + ", a name that is taken"
		case attributionOutput(x.Output) != x.Output || x.Output[0] >= '0' && x.Output[0] <= '9':
			return "calls a label " + strconv.Quote(x.Output) + ", which is no name of a label"
		case slices.Contains(seen, x.Output):
			return "has two labels called " + strconv.Quote(x.Output)
		}
		seen = append(seen, x.Output)
	}
	return ""
}

// readAttribution reads a list of {input, output}; output may be left out.
func readAttribution(doc *strict.Doc, n *yaml.Node, path string) (*AttributionLabels, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	out := &AttributionLabels{}
	for k, item := range items {
		var x AttributionLabel
		at := path + "[" + strconv.Itoa(k) + "]"
		for _, e := range doc.Entries(item, at) {
			text, good := doc.Text(e.Value, at+"."+e.Key, "text")
			switch e.Key {
			case "input":
				x.Input = text
			case "output":
				x.Output = text
			default:
				doc.Problems.Add(doc.Where(e.Line), "%s: unknown key %q%s", at, e.Key, strict.Suggest(e.Key, []string{"input", "output"}))
				good = false
			}
			ok = ok && good
		}
		if x.Output == "" {
			x.Output = attributionOutput(x.Input)
		}
		out.list = append(out.list, x)
	}
	if fault := attributionFault(out.list); ok && fault != "" {
		line := 0
		if n != nil {
			line = n.Line
		}
		doc.Problems.Add(doc.Where(line), "%s: %s", path, fault)
		return nil, false
	}
	return out, ok
}
