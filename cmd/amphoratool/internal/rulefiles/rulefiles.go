// Package rulefiles owns rule files on disk, in the formats of mimirtool and Prometheus: how they are
// found, read, checked, formatted and compared.
package rulefiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds a file of rules.
const maxFileBytes = 64 << 20

// Group is a rule group with what Mimir and we add to Prometheus's.
type Group struct {
	rulefmt.RuleGroup   `yaml:",inline"`
	SourceTenants       []string        `yaml:"source_tenants,omitempty"`
	EvaluationDelay     *model.Duration `yaml:"evaluation_delay,omitempty"`
	AlignEvaluationTime bool            `yaml:"align_evaluation_time_on_interval,omitempty"`
}

// Namespace is the groups of one namespace.
type Namespace struct {
	Name   string  `yaml:"namespace,omitempty"`
	Groups []Group `yaml:"groups"`

	File string `yaml:"-"` // where it was read
}

// Set is namespaces by name.
type Set map[string]*Namespace

// Sources are where rules are read from.
type Sources struct {
	Files []string
	Dirs  []string
}

// Paths returns the files: those named, and every .yml and .yaml below the directories.
func (s Sources) Paths() ([]string, error) {
	paths := slices.Clone(s.Files)
	for _, dir := range s.Dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if ext := filepath.Ext(path); err == nil && !d.IsDir() && (ext == ".yml" || ext == ".yaml") {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for rules: %w", err)
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("no rule files: name some, or use --rule-files or --rule-dirs")
	}
	return paths, nil
}

// Read reads all of s. Two namespaces of one name are refused.
func (s Sources) Read() (Set, error) {
	paths, err := s.Paths()
	if err != nil {
		return nil, err
	}
	all := Set{}
	for _, path := range paths {
		list, err := ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, ns := range list {
			if first := all[ns.Name]; first != nil {
				return nil, fmt.Errorf("namespace %q stands in %s and in %s", ns.Name, first.File, path)
			}
			all[ns.Name] = ns
		}
	}
	return all, nil
}

// ReadFile reads every namespace of a file: one for each YAML document. One without a name is named
// after the file.
func ReadFile(path string) ([]*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	list, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, ns := range list {
		ns.File = path
		if ns.Name == "" {
			ns.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		}
	}
	return list, nil
}

// Parse reads the documents of a file strictly and checks what Prometheus checks of rules.
func Parse(data []byte) ([]*Namespace, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var list []*Namespace
	for {
		ns := new(Namespace)
		if err := dec.Decode(ns); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		if err := ns.check(); err != nil {
			return nil, err
		}
		list = append(list, ns)
	}
}

// Parser understands every feature of PromQL, since which ones a server allows is its own affair.
func Parser() parser.Parser {
	return parser.NewParser(parser.Options{EnableExperimentalFunctions: true, ExperimentalDurationExpr: true, EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true})
}

func (ns *Namespace) check() error {
	seen := map[string]bool{}
	var found []error
	for _, g := range ns.Groups {
		if g.Name == "" {
			found = append(found, errors.New("a group has no name"))
		}
		if seen[g.Name] {
			found = append(found, fmt.Errorf("group %q stands twice in its namespace", g.Name))
		}
		seen[g.Name] = true
		for i, r := range g.Rules {
			for _, err := range r.Validate(rulefmt.RuleNode{}, model.UTF8Validation, Parser()) {
				found = append(found, fmt.Errorf("group %q, rule %d (%s%s): %s", g.Name, i+1, r.Alert, r.Record, strings.TrimPrefix(err.Error(), "0:0: ")))
			}
		}
	}
	return errors.Join(found...)
}

// Names returns the namespaces in order.
func (s Set) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Write writes the namespaces of one file again.
func Write(path string, list []*Namespace) error {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, ns := range list {
		if err := enc.Encode(ns); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
