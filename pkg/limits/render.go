package limits

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// WriteRuntime writes the runtime configuration in force to w as YAML that can be loaded again.
// mode "" shows every limit of each tenant with overrides, "diff" those that differ from the
// defaults. Errors: Invalid for another mode, and those of w.
func (o *Overrides) WriteRuntime(w io.Writer, mode string) error {
	if mode != "" && mode != "diff" {
		return errs.New(errs.Invalid, "unknown mode %q; there is diff", mode)
	}
	s := o.state.Load()
	tenants := &yaml.Node{Kind: yaml.MappingNode}
	for _, id := range s.ids() {
		v := s.tenants[id]
		rows := &yaml.Node{Kind: yaml.MappingNode}
		for i, r := range Table {
			if mode == "" || !same(v.Value(i), s.base.Value(i)) {
				rows.Content = append(rows.Content, node(r.Name), node(v.Value(i)))
			}
		}
		if len(rows.Content) > 0 {
			tenants.Content = append(tenants.Content, node(string(id)), rows)
		}
	}
	doc := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{node("overrides"), tenants}}
	if n := s.file.ingester.node(); n != nil {
		doc.Content = append(doc.Content, node(ingesterSection), n)
	}
	if n := s.file.distributor.node(); n != nil {
		doc.Content = append(doc.Content, node(distributorSection), n)
	}
	if n := s.file.stores.node(); n != nil {
		doc.Content = append(doc.Content, node(storesSection), n)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("write runtime configuration: %w", err)
	}
	return enc.Close()
}

// MarshalJSON returns every limit in v by its name, in the order of the table. Durations are text.
func (v View) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, r := range Table {
		if i > 0 {
			b.WriteByte(',')
		}
		x, err := json.Marshal(jsonValue(v.Value(i)))
		if err != nil {
			return nil, fmt.Errorf("write limit %s: %w", r.Name, err)
		}
		fmt.Fprintf(&b, "%q:%s", r.Name, x)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

const referenceHead = `# Limits

Each limit has a default for all tenants (a key below ` + "`limits`" + ` in the configuration file, or its flag) and can be overridden
per tenant in a runtime file (` + "`runtime_config.file`" + `), which is reloaded while the process runs:

` + "```yaml" + `
overrides:
  team-a:
    ingestion_rate: 50000
    out_of_order_time_window: 1h
ingester_limits:
  max_series: 3000000
` + "```" + `

A file with an unknown limit, a value of the wrong type or an invalid tenant name is rejected as a whole, with the line. A
running process then keeps the limits it has and sets ` + "`amphora_runtime_config_last_reload_successful`" + ` to 0; a starting one
exits. Anchors, aliases and merge keys (` + "`<<`" + `) are allowed. If several files set the same limit of a tenant, the last one wins.
`

// Reference writes the Markdown page of the table and the presets to w.
func Reference(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	article := strings.NewReplacer("an ", "", "a ", "")
	b.WriteString("\n## Limits\n\n| limit | flag | type | default | unit | meaning | enforced by |\n|---|---|---|---|---|---|---|\n")
	for _, r := range Table {
		fmt.Fprintf(&b, "| `%s` | `-%s` | %s | %s | %s | %s | %s |\n", r.Name, r.Flag, article.Replace(r.kind()), code(r.Default), r.Unit,
			strings.ReplaceAll(r.Doc+config.Choices(r.Allowed), "|", `\|`), strings.Join(r.By, ", "))
	}
	for _, p := range presets() {
		fmt.Fprintf(&b, "\n## Preset `%s`\n\n%s.\n", p.name, strings.ToUpper(p.doc[:1])+p.doc[1:])
		if len(p.values) == 0 {
			continue
		}
		b.WriteString("\n| limit | value |\n|---|---|\n")
		for _, r := range Table {
			if x, ok := p.values[r.Name]; ok {
				fmt.Fprintf(&b, "| `%s` | %s |\n", r.Name, code(x))
			}
		}
	}
	b.WriteString("\n## Limits of a process\n\nThe runtime file can change these too:\n\n")
	for _, r := range instanceRows() {
		where := "`ingester_limits` and `distributor_limits`"
		if r.only != "" {
			where = "`" + r.only + "`"
		}
		fmt.Fprintf(&b, "- `%s` in %s\n", r.name, where)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func code(x any) string {
	if s := format(x); s != "" {
		return "`" + s + "`"
	}
	return ""
}
