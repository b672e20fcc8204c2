package limits

import (
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// LabelSetLimit bounds the series that have all of some labels. Without labels it is for the series
// that are in no other set.
type LabelSetLimit struct {
	Labels    labels.Labels
	MaxSeries int // before replication; 0: they are only counted
}

// LabelSetLimits are limits of different label sets, in the order they were written in.
type LabelSetLimits struct{ list []LabelSetLimit }

// List returns the limits, which must not be changed.
func (l *LabelSetLimits) List() []LabelSetLimit { return l.list }

// Node is part of Structured.
func (l *LabelSetLimits) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.SequenceNode}
	if len(l.list) == 0 {
		out.Style = yaml.FlowStyle
	}
	for _, x := range l.list {
		set := &yaml.Node{Kind: yaml.MappingNode}
		x.Labels.Range(func(l labels.Label) { set.Content = append(set.Content, node(l.Name), node(l.Value)) })
		limits := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{node("max_series"), node(x.MaxSeries)}}
		out.Content = append(out.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{node("label_set"), set, node("limits"), limits}})
	}
	return out
}

// readLabelSets reads a list of {label_set, limits: {max_series}}.
func readLabelSets(doc *strict.Doc, n *yaml.Node, path string) (*LabelSetLimits, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	out, seen := &LabelSetLimits{}, map[string]bool{}
	for k, item := range items {
		at := path + "[" + strconv.Itoa(k) + "]"
		x, good := readLabelSet(doc, item, at)
		if key := x.Labels.String(); good && seen[key] {
			doc.Problems.Add(doc.Where(item.Line), "%s: the label set %s occurs twice", at, key)
			good = false
		} else {
			seen[key] = true
		}
		out.list, ok = append(out.list, x), ok && good
	}
	return out, ok
}

func readLabelSet(doc *strict.Doc, n *yaml.Node, path string) (x LabelSetLimit, ok bool) {
	ok = true
	given := map[string]bool{}
	for _, e := range doc.Entries(n, path) {
		given[e.Key] = true
		at := path + "." + e.Key
		switch e.Key {
		case "label_set":
			b := labels.NewScratchBuilder(0)
			for _, l := range doc.Entries(e.Value, at) {
				value, good := doc.Text(l.Value, at+"."+l.Key, "text")
				b.Add(l.Key, value)
				ok = ok && good
			}
			b.Sort()
			x.Labels = b.Labels()
		case "limits":
			for _, l := range doc.Entries(e.Value, at) {
				if l.Key != "max_series" {
					doc.Problems.Add(doc.Where(l.Line), "%s: unknown key %q%s", at, l.Key, strict.Suggest(l.Key, []string{"max_series"}))
					ok = false
					continue
				}
				text, good := doc.Text(l.Value, at+"."+l.Key, "an integer")
				if !good {
					ok = false
					continue
				}
				most, err := config.ParseInt(text)
				if err == nil && most < 0 {
					err = strconv.ErrRange
				}
				if err != nil {
					doc.Problems.Add(doc.Where(l.Line), "%s.max_series: %q is not a number of series", at, text)
					ok = false
				}
				x.MaxSeries = most
			}
		default:
			doc.Problems.Add(doc.Where(e.Line), "%s: unknown key %q%s", path, e.Key, strict.Suggest(e.Key, []string{"label_set", "limits"}))
			ok = false
		}
	}
	if ok && !given["limits"] {
		doc.Problems.Add(doc.Where(n.Line), "%s: limits is missing", path)
		ok = false
	}
	return x, ok
}
