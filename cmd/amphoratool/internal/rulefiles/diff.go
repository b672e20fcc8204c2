package rulefiles

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Change is what must be done to one group of the server so that it is like the files.
type Change struct {
	Namespace, Group string
	Old, New         *Group // nil: not there
}

// Verb says what the change does.
func (c Change) Verb() string {
	switch {
	case c.Old == nil:
		return "create"
	case c.New == nil:
		return "delete"
	}
	return "update"
}

// Scope says which namespaces a comparison looks at. At most one of its fields is set.
type Scope struct {
	Only, Ignored             []string
	OnlyRegexp, IgnoredRegexp string
}

// match returns the test of a namespace.
func (s Scope) match() (func(string) bool, error) {
	set := 0
	for _, is := range []bool{len(s.Only) > 0, len(s.Ignored) > 0, s.OnlyRegexp != "", s.IgnoredRegexp != ""} {
		if is {
			set++
		}
	}
	if set > 1 {
		return nil, fmt.Errorf("only one of --namespaces, --ignored-namespaces, --namespaces-regex and --ignored-namespaces-regex can be given")
	}
	only, err := regexp.Compile(s.OnlyRegexp)
	if err != nil {
		return nil, fmt.Errorf("--namespaces-regex: %w", err)
	}
	ignored, err := regexp.Compile(s.IgnoredRegexp)
	if err != nil {
		return nil, fmt.Errorf("--ignored-namespaces-regex: %w", err)
	}
	return func(name string) bool {
		switch {
		case len(s.Only) > 0:
			return slices.Contains(s.Only, name)
		case len(s.Ignored) > 0:
			return !slices.Contains(s.Ignored, name)
		case s.IgnoredRegexp != "":
			return !ignored.MatchString(name)
		}
		return only.MatchString(name)
	}, nil
}

// Compare says what makes have like want within a scope, in the order of names.
func Compare(have, want Set, scope Scope) ([]Change, error) {
	in, err := scope.match()
	if err != nil {
		return nil, err
	}
	var changes []Change
	all := maps.Clone(have)
	maps.Copy(all, want)
	for _, name := range all.Names() {
		if !in(name) {
			continue
		}
		old, fresh := groups(have[name]), groups(want[name])
		both := maps.Clone(old)
		maps.Copy(both, fresh)
		for _, group := range slices.Sorted(maps.Keys(both)) {
			c := Change{Namespace: name, Group: group, Old: old[group], New: fresh[group]}
			if c.Old == nil || c.New == nil || !bytes.Equal(text(c.Old), text(c.New)) {
				changes = append(changes, c)
			}
		}
	}
	return changes, nil
}

func groups(ns *Namespace) map[string]*Group {
	out := map[string]*Group{}
	if ns != nil {
		for i := range ns.Groups {
			out[ns.Groups[i].Name] = &ns.Groups[i]
		}
	}
	return out
}

// text is what two equal groups have in common: expressions as they are written, maps in order, an
// empty list like none.
func text(g *Group) []byte {
	c := *g
	c.Rules = slices.Clone(c.Rules)
	for i := range c.Rules {
		c.Rules[i].Expr = strings.TrimSpace(c.Rules[i].Expr)
	}
	if c.QueryOffset == nil {
		c.QueryOffset, c.EvaluationDelay = c.EvaluationDelay, nil // its former name
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		panic("BUG: a rule group cannot be written: " + err.Error())
	}
	return data
}

// Lines writes the change for people: the lines of both groups that differ, marked - and +.
func (c Change) Lines() []string {
	var old, fresh []string
	if c.Old != nil {
		old = strings.Split(strings.TrimSuffix(string(text(c.Old)), "\n"), "\n")
	}
	if c.New != nil {
		fresh = strings.Split(strings.TrimSuffix(string(text(c.New)), "\n"), "\n")
	}
	return compareLines(old, fresh)
}

// compareLines is the shortest list of removed and added lines, with those kept between them.
func compareLines(a, b []string) []string {
	// longest[i][j] is the length of the longest common list of a[i:] and b[j:].
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}
