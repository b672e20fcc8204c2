package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The modes of Set.Print.
const (
	ModeEffective = "effective" // every setting as it is
	ModeDiff      = "diff"      // the settings that differ from their default
	ModeDefaults  = "defaults"  // every setting as it would be if nobody set it
	ModeReference = "reference" // the Markdown page of all settings
	ModeSchema    = "schema"    // the JSON schema of the file
)

// derivedKey is the section of derived facts in ModeEffective. The loader skips it.
const derivedKey = "derived"

func modeNames() []string {
	return []string{ModeEffective, ModeDiff, ModeDefaults, ModeReference, ModeSchema}
}

// Print writes the configuration to w in the given mode; "" is ModeEffective. The three YAML modes
// can be loaded again, except that secrets are masked. Errors: Invalid for an unknown mode, and
// those of w.
func (s *Set) Print(w io.Writer, mode string) error {
	switch mode {
	case "", ModeEffective:
		n := s.yaml((*Field).current, func(*Field) bool { return true })
		s.addDerived(n)
		return encode(w, n)
	case ModeDiff:
		return encode(w, s.yaml((*Field).current, (*Field).changed))
	case ModeDefaults:
		return encode(w, s.yaml((*Field).initial, func(*Field) bool { return true }))
	case ModeReference:
		return s.reference(w)
	case ModeSchema:
		return s.schema(w)
	}
	return errs.New(errs.Invalid, "unknown mode %q; there are %v", mode, modeNames())
}

// Hash returns a short hash of all settings, secrets included, by which processes that should be
// configured alike can be compared.
func (s *Set) Hash() string {
	h := sha256.New()
	for _, f := range s.shared.fields {
		fmt.Fprintf(h, "%s=%q\n", f.Path, f.Value())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (f *Field) changed() bool { return f.Value() != f.Default }

// current returns the masked value of f as YAML.
func (f *Field) current() *yaml.Node {
	if f.document != nil {
		return f.document.Node()
	}
	if f.list != nil {
		return listNode(f.list())
	}
	v := f.Value()
	if f.Secret && v != "" {
		v = mask
	}
	return f.scalar(v)
}

// initial returns the default of f as YAML.
func (f *Field) initial() *yaml.Node {
	if f.document != nil {
		n, err := parseText(f.Default)
		if err != nil {
			panic("BUG: the default of " + f.Path + " does not parse: " + err.Error())
		}
		return n
	}
	if f.list != nil {
		return listNode(ParseStrings(f.Default))
	}
	return f.scalar(f.Default)
}

func (f *Field) scalar(v string) *yaml.Node {
	tag := "!!str"
	switch f.Type {
	case typeInt:
		tag = "!!int"
	case typeFloat:
		tag = "" // a whole number needs no point
	case typeBool:
		tag = "!!bool"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v}
}

func listNode(items []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if len(items) == 0 {
		n.Style = yaml.FlowStyle
	}
	for _, item := range items {
		n.Content = append(n.Content, textNode(item))
	}
	return n
}

func textNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// yaml builds the document of the fields that keep chooses.
func (s *Set) yaml(value func(*Field) *yaml.Node, keep func(*Field) bool) *yaml.Node {
	var build func(t *tree) *yaml.Node
	build = func(t *tree) *yaml.Node {
		if t.field != nil {
			if !keep(t.field) {
				return nil
			}
			return value(t.field)
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, kid := range t.kids {
			if v := build(kid); v != nil {
				n.Content = append(n.Content, textNode(kid.name), v)
			}
		}
		if len(n.Content) == 0 && t.path != "" {
			return nil
		}
		return n
	}
	return build(s.arrange())
}

// addDerived adds the section of derived facts to the document n.
func (s *Set) addDerived(n *yaml.Node) {
	s.shared.mu.Lock()
	facts := slices.Clone(s.shared.derived)
	s.shared.mu.Unlock()
	if len(facts) == 0 {
		return
	}
	section := &yaml.Node{Kind: yaml.MappingNode}
	for _, d := range facts {
		section.Content = append(section.Content, textNode(d.name), &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			textNode("value"), textNode(d.value()), textNode("from"), textNode(d.how),
		}})
	}
	n.Content = append(n.Content, textNode(derivedKey), section)
}

func encode(w io.Writer, n *yaml.Node) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return enc.Close()
}
