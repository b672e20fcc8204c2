// Package limits owns the one table of per-tenant limits. The flags, the keys of the overrides file,
// the reference page, the limits API and the overrides exporter are loops over it. It also owns the
// runtime overrides file: reading it, reloading it, and a tenant's View of it.
package limits

import (
	"fmt"
	"math"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Row is one limit of the table.
type Row struct {
	Name    string // key in the YAML file and in overrides, "ingestion_rate"
	Flag    string // command line flag without its dash, "distributor.ingestion-rate-limit"
	Unit    string
	Doc     string
	Default any      // its type is the type of the limit: a Value, or Structured
	By      []string // rooms that enforce it
	Allowed []string // the only values of a text limit; empty: any

	valid func(any) error // what else a value must fulfil; nil: nothing
	below bool            // whether numbers below zero have a meaning
	// shape reads the value of a structured limit; nil for all others.
	shape func(doc *strict.Doc, n *yaml.Node, path string) (any, bool)
}

// Table is every limit, in declaration order. It is complete when the program starts and must not
// be changed.
var Table []*Row

// Key names one limit and its type.
type Key[T any] struct{ i int }

// Value is what a limit may be.
type Value interface {
	int | float64 | bool | string | time.Duration | []string
}

func define[T Value](name, flag string, def T, unit, doc string, by ...string) Key[T] {
	Table = append(Table, &Row{Name: name, Flag: flag, Unit: unit, Doc: doc, Default: def, By: by})
	return Key[T]{len(Table) - 1}
}

// Structured is a limit with a shape of its own, written as YAML. A value is never changed.
type Structured interface {
	// Node returns the value as YAML that can be read again.
	Node() *yaml.Node
}

// structured adds a limit with a shape of its own. read takes a value from a document; what is
// wrong is noted there with its line, and then ok is false.
func structured[T Structured](r Row, read func(doc *strict.Doc, n *yaml.Node, path string) (x T, ok bool)) Key[T] {
	r.shape = func(doc *strict.Doc, n *yaml.Node, path string) (any, bool) { return read(doc, n, path) }
	Table = append(Table, &r)
	return Key[T]{len(Table) - 1}
}

// oneOf restricts the limit just defined to values. It is for text limits.
func (k Key[T]) oneOf(values ...string) Key[T] {
	Table[k.i].Allowed = values
	return k
}

// must makes the limit just defined refuse the values for which valid returns an error.
func (k Key[T]) must(valid func(T) error) Key[T] {
	Table[k.i].valid = func(x any) error { return valid(x.(T)) }
	return k
}

// signed gives values below zero a meaning in the limit just defined.
func (k Key[T]) signed() Key[T] {
	Table[k.i].below = true
	return k
}

// View is the limits of one tenant, immutable. The zero View has the defaults.
type View struct {
	over  []any
	epoch uint64
}

// Of returns the limit in v. A list belongs to v and must not be changed.
func (k Key[T]) Of(v View) T {
	if k.i < len(v.over) {
		if x, ok := v.over[k.i].(T); ok {
			return x
		}
	}
	return Table[k.i].Default.(T)
}

// With returns v with k set to x.
func (k Key[T]) With(v View, x T) View {
	o := make([]any, len(Table))
	copy(o, v.over)
	o[k.i] = x
	return View{over: o, epoch: v.epoch + 1}
}

// WithText is With for a value as text, as a flag takes it. Errors: Invalid.
func (k Key[T]) WithText(v View, text string) (View, error) {
	x, err := Table[k.i].parse(text)
	if err != nil {
		return v, err
	}
	return k.With(v, x.(T)), nil
}

// Row returns the table's row of k.
func (k Key[T]) Row() *Row { return Table[k.i] }

func (k Key[T]) String() string { return Table[k.i].Name }

// Epoch changes whenever the limits of any tenant may have changed; what was decided under an
// older epoch must be decided anew.
func (v View) Epoch() uint64 { return v.epoch }

// Value returns the limit of row i of Table in v, for loops over the table.
func (v View) Value(i int) any {
	if i < len(v.over) && v.over[i] != nil {
		return v.over[i]
	}
	return Table[i].Default
}

// check says why x may not be the value of r. Few limits have a meaning below zero.
func (r *Row) check(x any) error {
	if r.valid != nil {
		if err := r.valid(x); err != nil {
			return err
		}
	}
	bad := false
	switch x := x.(type) {
	case int:
		bad = x < 0
	case float64:
		bad = x < 0 && !r.below || math.IsNaN(x) || math.IsInf(x, 0)
	case time.Duration:
		bad = x < 0
	case string:
		if len(r.Allowed) > 0 && !slices.Contains(r.Allowed, x) {
			return fmt.Errorf("%q is not one of %v", x, r.Allowed)
		}
	}
	if bad {
		return fmt.Errorf("%s is below zero", format(x))
	}
	return nil
}

// same says whether two values of one row are equal.
func same(a, b any) bool {
	switch x := a.(type) {
	case []string:
		y, ok := b.([]string)
		return ok && slices.Equal(x, y)
	case Structured:
		return format(a) == format(b)
	}
	return a == b
}
