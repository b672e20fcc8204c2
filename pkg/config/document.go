package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Document is the value of a setting that has a shape of its own. In the file it is YAML; as text,
// in a flag or the environment, the same YAML on one line.
type Document interface {
	// Read takes the value from n, which stands at path. What is wrong is noted in doc, and then
	// the result is false and the value as it was.
	Read(doc *strict.Doc, n *yaml.Node, path string) bool
	// Node returns the value as YAML.
	Node() *yaml.Node
}

// Document declares a setting with a shape of its own; d holds the default.
func (s *Set) Document(d Document, name, doc string) *Field {
	f := s.add(name, typeDocument, FormatNode(d.Node()), doc, func(v string) error {
		return ReadText(v, func(doc *strict.Doc, n *yaml.Node) bool { return d.Read(doc, n, "") })
	}, func() string { return FormatNode(d.Node()) })
	f.document = d
	return f
}

// ReadText hands the YAML in text to read, which notes what is wrong in the document it is given.
// Errors: Invalid.
func ReadText(text string, read func(*strict.Doc, *yaml.Node) bool) error {
	problems := new(strict.Problems)
	doc := strict.Parse("value", []byte(text), nil, problems)
	if problems.Empty() {
		read(doc, doc.Root())
	}
	return problems.Err()
}

func parseText(text string) (*yaml.Node, error) {
	var out *yaml.Node
	err := ReadText(text, func(_ *strict.Doc, n *yaml.Node) bool { out = n; return true })
	return out, err
}

// FormatNode returns n as YAML on one line.
func FormatNode(n *yaml.Node) string {
	b, err := yaml.Marshal(flow(n))
	if err != nil {
		panic(fmt.Sprintf("BUG: a node that cannot be written: %v", err))
	}
	return strings.TrimSuffix(string(b), "\n")
}

// flow returns a copy of n in the style that takes one line.
func flow(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, k := range n.Content {
		c.Content[i] = flow(k)
	}
	switch {
	case c.Kind != yaml.ScalarNode:
		c.Style = yaml.FlowStyle
	case strings.ContainsAny(c.Value, "\n\r"):
		c.Style = yaml.DoubleQuotedStyle
	}
	return &c
}
