package alertmanager

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// rules is what definitions of tenants are held to.
type rules struct {
	receivers string     // the kinds that may be used
	base      *yaml.Node // what every configuration has beside its own; nil: nothing
}

// baseKeys are the lists that a base may have.
func baseKeys() []string {
	return []string{"receivers", "inhibit_rules", "time_intervals", "mute_time_intervals"}
}

// rules reads the rules that the settings name.
func (c *Config) rules() (rules, error) {
	out := rules{receivers: c.Receivers}
	if c.BaseFile == "" {
		return out, nil
	}
	text, err := os.ReadFile(c.BaseFile)
	if err != nil {
		return out, fmt.Errorf("base configuration: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return out, fmt.Errorf("base configuration %s: %w", c.BaseFile, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return out, fmt.Errorf("base configuration %s is no mapping", c.BaseFile)
	}
	out.base = doc.Content[0]
	for i := 0; i+1 < len(out.base.Content); i += 2 {
		key, list := out.base.Content[i], out.base.Content[i+1]
		if !slices.Contains(baseKeys(), key.Value) || list.Kind != yaml.SequenceNode {
			return out, fmt.Errorf("base configuration %s: line %d: %s is not one of the lists %v", c.BaseFile, key.Line, key.Value, baseKeys())
		}
	}
	return out, nil
}

// under returns the text of a configuration with the base added, and how many receivers are its own.
// Errors: Conflict, when both name something the same.
func (r rules) under(text string) (merged string, own int, err error) {
	root := document(text)
	if list := find(root, "receivers"); list != nil {
		own = len(list.Content)
	}
	if r.base == nil || root.Kind != yaml.MappingNode {
		return text, own, nil
	}
	for i := 0; i+1 < len(r.base.Content); i += 2 {
		key, add := r.base.Content[i], r.base.Content[i+1]
		list := find(root, key.Value)
		if list == nil {
			root.Content = append(root.Content, key, &yaml.Node{Kind: yaml.SequenceNode, Content: add.Content})
			continue
		}
		if list.Kind != yaml.SequenceNode {
			return text, own, nil // upstream says what is wrong with it
		}
		for _, item := range add.Content {
			name := find(item, "name")
			for _, mine := range list.Content {
				if n := find(mine, "name"); name != nil && n != nil && n.Value == name.Value {
					return "", 0, errs.New(errs.Conflict, "alertmanager_config: line %d: the name %q of %s is taken by the operator's base configuration", n.Line, n.Value, key.Value)
				}
			}
		}
		list.Content = append(list.Content, add.Content...)
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return "", 0, errs.New(errs.Invalid, "alertmanager_config: %w", err)
	}
	return string(out), own, nil
}

// load is upstream's reading of text with the base. What the tenant's text alone has wrong is said
// with its own lines.
func (r rules) load(text string) (*loaded, error) {
	merged, own, err := r.under(text)
	if err != nil {
		return nil, err
	}
	conf, err := load(merged)
	if err == nil {
		return &loaded{conf, own}, nil
	}
	if merged == text {
		return nil, err
	}
	if _, alone := load(text); alone != nil && hasLine.MatchString(alone.Error()) && unwrapped(alone) == unwrapped(err) {
		err = alone
	}
	return nil, err
}

// unwrapped is the text of the innermost error, which has no line that was added.
func unwrapped(err error) string {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err.Error()
}
