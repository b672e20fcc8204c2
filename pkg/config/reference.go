package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Help writes the flags to w; those marked Expert only if all is set.
func (s *Set) Help(w io.Writer, program string, all bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Usage: %s [-config.file=amphora.yaml] [-setting=value ...]\n\n", program)
	b.WriteString("Every setting is a flag, a key of the YAML file (flag -a.b-c is key c of section a.b, spelt b_c)\n" +
		"and an environment variable (AMPHORA_A_B_C). A flag wins over the environment, and that over the file.\n")
	own := NewSet()
	own.Mount("", new(Request))
	hidden := 0
	for _, f := range append(own.shared.fields, s.shared.fields...) {
		if f.Advanced && !all {
			hidden++
			continue
		}
		fmt.Fprintf(&b, "\n  -%s%s\n", f.Flag, f.operand())
		fmt.Fprintf(&b, "        %s%s\n", strings.ReplaceAll(f.Doc, "\n", "\n        "), f.defaultNote())
	}
	if hidden > 0 {
		fmt.Fprintf(&b, "\n-help-all shows %d more.\n", hidden)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (f *Field) operand() string {
	switch f.Type {
	case typeBool:
		return ""
	case typeStrings:
		return " value,..."
	}
	return " " + f.Type
}

func (f *Field) defaultNote() string {
	var notes []string
	if len(f.Allowed) > 0 && f.Allowed[0] != "" {
		notes = append(notes, "one of "+strings.Join(f.Allowed, ", "))
	}
	if f.Default != "" && f.Default != "false" {
		notes = append(notes, "default "+f.Default)
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}

const referenceHead = `# Settings

Every setting is a key of the YAML file (` + "`-config.file`" + `), a flag and an environment variable: ` + "`AMPHORA_`" + ` and the
flag in capitals, with ` + "`_`" + ` for dots and dashes. A flag wins over the environment, the environment over the file, the
file over the default. An unknown key or flag, or a value of the wrong type, stops the process with an error that names the line and
the closest known name. With ` + "`-config.expand-env`" + ` values in the file may contain ` + "`${VAR}`" + ` or ` + "`${VAR:default}`" + `; ` + "`$${`" + `
is a literal ` + "`${`" + `. ` + "`-config.check`" + ` checks everything and prints the effective configuration.

The program prints this page itself (` + "`-print.config=reference`" + `).
`

// reference writes the Markdown page, a table for each top-level section.
func (s *Set) reference(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	own := NewSet()
	own.Mount("", new(Request))
	b.WriteString("\n## Command line only\n\n| flag | type | default | meaning |\n|---|---|---|---|\n")
	for _, f := range own.shared.fields {
		fmt.Fprintf(&b, "| `-%s` | %s | %s | %s |\n", f.Flag, f.Type, code(f.Default), cell(f.Doc))
	}
	root := s.arrange()
	var top []*tree
	for _, t := range root.kids {
		if t.field != nil {
			top = append(top, t)
		}
	}
	if len(top) > 0 {
		writeTable(&b, "Top level", top)
	}
	for _, t := range root.kids {
		if t.field == nil {
			writeTable(&b, "`"+t.name+"`", []*tree{t})
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Choices says in a reference page which values are allowed, or nothing if any is.
func Choices(allowed []string) string {
	if len(allowed) == 0 {
		return ""
	}
	names := slices.Clone(allowed)
	if i := slices.Index(names, ""); i >= 0 {
		names = append(slices.Delete(names, i, i+1), "or empty")
	}
	return " One of: " + strings.Join(names, ", ") + "."
}

// typeName is the type that a reader must know: a secret is a string that is never shown.
func (f *Field) typeName() string {
	if f.Secret {
		return typeSecret
	}
	return f.Type
}

func writeTable(b *bytes.Buffer, title string, ts []*tree) {
	fmt.Fprintf(b, "\n## %s\n\n| key | flag | type | default | meaning |\n|---|---|---|---|---|\n", title)
	var write func(t *tree)
	write = func(t *tree) {
		if f := t.field; f != nil {
			fmt.Fprintf(b, "| `%s` | `-%s` | %s | %s | %s |\n", f.Path, f.Flag, f.typeName(), code(f.Default), cell(f.Doc+Choices(f.Allowed)))
		}
		for _, kid := range t.kids {
			write(kid)
		}
	}
	for _, t := range ts {
		write(t)
	}
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

// cell makes s fit into a cell of a Markdown table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ")
}

// durationPattern matches the two forms ParseDuration reads.
const durationPattern = `^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|[-+]?([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h))+)$`

// schema writes a JSON schema (2020-12) of the file, for editors.
func (s *Set) schema(w io.Writer) error {
	root := section(s.arrange())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Amphora configuration"
	root["properties"].(map[string]any)[derivedKey] = map[string]any{
		"description": "Printed by the program; not read.", "type": "object",
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(root)
}

func section(t *tree) map[string]any {
	properties := map[string]any{}
	for _, kid := range t.kids {
		if kid.field != nil {
			properties[kid.name] = kid.field.jsonSchema()
		} else {
			properties[kid.name] = section(kid)
		}
	}
	return map[string]any{"type": []string{"object", "null"}, "additionalProperties": false, "properties": properties}
}

func (f *Field) jsonSchema() map[string]any {
	m := map[string]any{"description": f.Doc}
	if f.Default != "" {
		m["default"] = f.jsonDefault()
	}
	switch f.Type {
	case typeInt:
		m["type"] = "integer"
	case typeFloat:
		m["type"] = "number"
	case typeBool:
		m["type"] = "boolean"
	case typeStrings:
		m["type"] = []string{"array", "string"}
		m["items"] = map[string]any{"type": "string"}
	case typeDocument:
		m["type"] = []string{"array", "object", "null"}
	case typeDuration:
		m["type"] = []string{"string", "integer"}
		m["pattern"] = durationPattern
		m["maximum"] = 0 // the only duration without a unit
	default:
		m["type"] = []string{"string", "number", "boolean"}
	}
	if len(f.Allowed) > 0 {
		m["type"], m["enum"] = "string", f.Allowed
	}
	return m
}

func (f *Field) jsonDefault() any {
	switch f.Type {
	case typeInt, typeFloat, typeBool:
		return json.RawMessage(f.Default)
	case typeStrings:
		return ParseStrings(f.Default)
	case typeDocument:
		var v any
		if n, err := parseText(f.Default); err == nil && n.Decode(&v) == nil {
			return v
		}
	}
	return f.Default
}
