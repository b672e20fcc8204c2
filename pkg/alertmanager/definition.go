package alertmanager

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/config"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// Definition is a tenant's configuration as it is put.
type Definition struct {
	Templates map[string]string `yaml:"template_files"` // by file name
	Config    string            `yaml:"alertmanager_config"`
}

// definition is a Definition that was read, checked and understood.
type definition struct {
	Definition
	conf *config.Config
	used []string // names of the templates that conf loads, sorted
}

// loaded is a configuration; the first own of its receivers are the tenant's and not the operator's.
type loaded struct {
	*config.Config
	own int
}

// theirs is what of a configuration the tenant wrote.
func (l *loaded) theirs() *config.Config {
	c := *l.Config
	c.Receivers = c.Receivers[:l.own]
	return &c
}

// maxTemplateName is what file systems take, since other tools write templates to files.
const maxTemplateName = 255

// parse reads a definition and checks everything that can be known without building receivers.
// Errors: Invalid, with the line where one is known.
func parse(data []byte, by rules, view limits.View) (*definition, error) {
	if most := limits.AlertmanagerMaxConfigSize.Of(view); most > 0 && len(data) > most {
		return nil, errs.New(errs.Invalid, "the configuration has %d bytes, over the limit of %d", len(data), most)
	}
	d := &definition{}
	dec := yaml.NewDecoder(bytes.NewReader(inner(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&d.Definition); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "the configuration is no mapping of template_files and alertmanager_config: %w", err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "the configuration holds more than one YAML document")
	}
	if strings.TrimSpace(d.Config) == "" {
		return nil, errs.New(errs.Invalid, "the configuration has no alertmanager_config; delete the configuration to have none")
	}
	if err := checkTemplates(d.Templates, view); err != nil {
		return nil, err
	}
	text, err := d.Config, error(nil)
	if by.receivers == ReceiversSNS {
		if text, err = tolerate(text); err != nil {
			return nil, err
		}
	}
	conf, err := by.load(text)
	if err != nil {
		return nil, err
	}
	d.conf = conf.Config
	if by.receivers == ReceiversSNS {
		if err := onlySNS(text, conf.theirs()); err != nil {
			return nil, err
		}
	}
	if err := refuseServerSettings(text, conf.theirs()); err != nil {
		return nil, err
	}
	if err := checkCounts(text, d.conf, by, view); err != nil {
		return nil, err
	}
	d.used, err = usedTemplates(text, d.conf.Templates, d.Templates)
	return d, err
}

// load is upstream's reading of a configuration, with a line in every error for which one is found.
func load(text string) (*config.Config, error) {
	conf, err := config.Load(text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "alertmanager_config: %w", withLine(text, err))
	}
	root := document(text)
	for _, name := range []string{"tracing", "event_recorder"} {
		if find(root, name) != nil {
			return nil, errs.New(errs.Invalid, "alertmanager_config: %s%s is a setting of the server and not of a tenant", lineOf(root, name), name)
		}
	}
	return conf, nil
}

// checkCounts refuses more routes and inhibition rules than the tenant may have; the operator's are not
// counted.
func checkCounts(text string, conf *config.Config, by rules, view limits.View) error {
	root := document(text)
	if most, n := limits.AlertmanagerMaxRoutes.Of(view), routes(conf.Route); most > 0 && n > most {
		return errs.New(errs.Invalid, "alertmanager_config: %sthe configuration has %d routes, over the limit of %d", lineOf(root, "route"), n, most)
	}
	own := len(conf.InhibitRules)
	if by.base != nil {
		if list := find(by.base, "inhibit_rules"); list != nil {
			own -= len(list.Content)
		}
	}
	if most := limits.AlertmanagerMaxInhibitRules.Of(view); most > 0 && own > most {
		return errs.New(errs.Invalid, "alertmanager_config: %sthe configuration has %d inhibit_rules, over the limit of %d", lineOf(root, "inhibit_rules"), own, most)
	}
	return nil
}

// routes counts a route and those below it.
func routes(r *config.Route) int {
	n := 1
	for _, below := range r.Routes {
		n += routes(below)
	}
	return n
}

func checkTemplates(files map[string]string, view limits.View) error {
	if most := limits.AlertmanagerMaxTemplates.Of(view); most > 0 && len(files) > most {
		return errs.New(errs.Invalid, "the configuration has %d templates, over the limit of %d", len(files), most)
	}
	most := limits.AlertmanagerMaxTemplateSize.Of(view)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch {
		case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") || len(name) > maxTemplateName:
			return errs.New(errs.Invalid, "template_files: %q is no plain file name", name)
		case most > 0 && len(files[name]) > most:
			return errs.New(errs.Invalid, "template_files: %s has %d bytes, over the limit of %d", name, len(files[name]), most)
		}
	}
	return nil
}

// usedTemplates returns the names of files that the patterns load, sorted.
func usedTemplates(text string, patterns []string, files map[string]string) ([]string, error) {
	used := map[string]bool{}
	for i, p := range patterns {
		line := lineOf(document(text), "templates", strconv.Itoa(i))
		if strings.ContainsAny(p, "/\\") {
			return nil, errs.New(errs.Invalid, "alertmanager_config: %stemplates[%d]: %q names a file outside template_files", line, i, p)
		}
		found := false
		for name := range files {
			match, err := path.Match(p, name)
			if err != nil {
				return nil, errs.New(errs.Invalid, "alertmanager_config: %stemplates[%d]: %q: %w", line, i, p, err)
			}
			if match || p == name {
				used[name], found = true, true
			}
		}
		if !found {
			return nil, errs.New(errs.Invalid, "alertmanager_config: %stemplates[%d]: template_files has no %q", line, i, p)
		}
	}
	return slices.Sorted(maps.Keys(used)), nil
}

// document parses text, which may be wrong; then the result is empty.
func document(text string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		return &yaml.Node{}
	}
	return doc.Content[0]
}

// find returns the node at path, whose parts are keys and indexes; nil if there is none.
func find(n *yaml.Node, path ...string) *yaml.Node {
	for _, part := range path {
		if _, n = child(n, part); n == nil {
			return nil
		}
	}
	return n
}

// child returns what stands at part of n, and its key; of a list both are the item.
func child(n *yaml.Node, part string) (key, value *yaml.Node) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	}
	return nil, nil
}

// lineOf is "line N: " of the deepest node on path that the document has.
func lineOf(n *yaml.Node, path ...string) string {
	line := n.Line
	for _, part := range path {
		var key *yaml.Node
		if key, n = child(n, part); n == nil {
			break
		}
		line = key.Line
	}
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("line %d: ", line)
}

var (
	hasLine = regexp.MustCompile(`\bline \d+`)
	quoted  = regexp.MustCompile(`"([^"]+)"`)
)

// withLine adds the line to an error of upstream that quotes a value of the text and names no line.
func withLine(text string, err error) error {
	if hasLine.MatchString(err.Error()) {
		return err
	}
	root := document(text)
	for _, m := range quoted.FindAllStringSubmatch(err.Error(), -1) {
		if n := scalar(root, m[1]); n != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
	}
	return err
}

// scalar returns the last scalar of the document that has value: what is named wrongly stands after
// what it should have named.
func scalar(n *yaml.Node, value string) *yaml.Node {
	for i := len(n.Content) - 1; i >= 0; i-- {
		if found := scalar(n.Content[i], value); found != nil {
			return found
		}
	}
	if n.Kind == yaml.ScalarNode && n.Value == value {
		return n
	}
	return nil
}
