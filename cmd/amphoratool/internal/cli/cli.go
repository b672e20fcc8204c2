// Package cli owns what all commands of amphoratool share: their streams, how a command is selected,
// and how results are printed.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"
)

// The formats of lists.
const (
	Table = "table"
	JSON  = "json"
	YAML  = "yaml"
)

// Env is what commands read, write and are chosen through. It belongs to one goroutine.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Log      *slog.Logger // set before a command runs

	chosen func(context.Context) error
}

// Do makes run what the command does.
func (e *Env) Do(c *kingpin.CmdClause, run func(context.Context) error) {
	c.Action(func(*kingpin.ParseContext) error {
		e.chosen = run
		return nil
	})
}

// Run runs the command that the parsed arguments chose.
func (e *Env) Run(ctx context.Context) error {
	if e.chosen == nil {
		return errors.New("which command?")
	}
	return e.chosen(ctx)
}

// First returns the first environment variable of names that is set, which is the default of a flag
// that established tools know under another name.
func (e *Env) First(names ...string) string {
	for _, n := range names {
		if v := e.Getenv(n); v != "" {
			return v
		}
	}
	return ""
}

// Flagger is an application, or a command of it.
type Flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// Format declares --output of a list. Tables are for people, and the default.
func Format(f Flagger, into *string) {
	f.Flag("output", "How to print: table, json or yaml.").Short('o').Default(Table).EnumVar(into, Table, JSON, YAML)
}

// Print writes a list: v as JSON or YAML, or the rows below their heads as a table.
func (e *Env) Print(format string, v any, heads []string, rows [][]string) error {
	if x := reflect.ValueOf(v); x.Kind() == reflect.Slice && x.IsNil() {
		v = []any{} // an empty list, and not null
	}
	switch format {
	case JSON:
		enc := json.NewEncoder(e.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case YAML:
		enc := yaml.NewEncoder(e.Out)
		enc.SetIndent(2)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
		return enc.Close()
	}
	w := tabwriter.NewWriter(e.Out, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{heads}, rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// Say writes a line for people.
func (e *Env) Say(format string, args ...any) { _, _ = fmt.Fprintf(e.Out, format+"\n", args...) }

// Interactive says whether a person reads what is written to w.
func Interactive(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
