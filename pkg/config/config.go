// Package config declares every setting once: its flag, YAML key, default and documentation come from
// one line in the Config of the room that owns it. It also loads the YAML file, the environment and
// the command line, strictly, and prints the effective configuration.
package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The types of settings.
const (
	typeString   = "string"
	typeStrings  = "list of strings"
	typeBool     = "boolean"
	typeInt      = "int"
	typeFloat    = "float"
	typeDuration = "duration"
	typeSecret   = "secret"
	typeDocument = "YAML"
)

// Field is one declared setting.
type Field struct {
	Path     string // YAML path, "distributor.push_timeout"
	Flag     string // flag name without its dash, "distributor.push-timeout"
	Type     string // "int", "duration", ..., for the reference
	Default  string
	Doc      string
	Secret   bool     // masked on /config and in logs
	Advanced bool     // left out of the short help
	Allowed  []string // the only values, if not empty
	Source   string   // who set it: "amphora.yaml:12", "flag -x", "environment X"; "" if nobody did
	Set      func(string) error
	Value    func() string // the current value, unmasked

	setList  func([]string) error // of lists only; their items may hold commas
	list     func() []string      // of lists only
	document Document             // of documents only
	bare     string               // the value of the flag given without one; "" if it needs one
}

// Set collects the fields of a process. Declaring and loading belong to one goroutine; after that
// a Set may be read from any.
type Set struct {
	prefix string
	shared *shared
}

// shared is what a Set and the Sets of its mounts have in common.
type shared struct {
	fields []*Field
	checks []check
	// resolve is called when all values are known, and before they are checked.
	resolve func(*Set) error

	mu      sync.Mutex // guards derived: parts derive facts while /config is already served
	derived []derived
}

// check is a mounted part that checks itself.
type check struct {
	prefix string
	part   Validator
}

type derived struct {
	name, how string
	value     func() string
}

// NewSet returns an empty set.
func NewSet() *Set { return &Set{shared: new(shared)} }

// Declarer is implemented by every room's Config.
type Declarer interface{ Declare(*Set) }

// Validator is a Declarer that checks its values once all are loaded. Parts it mounts are checked
// by themselves. Wrong names the setting in the error.
type Validator interface{ Validate() error }

// Mount declares d's fields under name, a YAML key of snake case such as "query_frontend". An
// empty name declares them where s stands.
func (s *Set) Mount(name string, d Declarer) {
	sub := &Set{prefix: s.prefix, shared: s.shared}
	if name != "" {
		sub.prefix += name + "."
	}
	d.Declare(sub)
	if v, ok := d.(Validator); ok {
		s.shared.checks = append(s.shared.checks, check{sub.prefix, v})
	}
}

// Derive registers a fact that is computed rather than set, shown on /config below "derived".
// how says what it is computed from. value must be safe for use by several goroutines.
func (s *Set) Derive(name, how string, value func() string) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.shared.derived = append(s.shared.derived, derived{s.prefix + name, how, value})
}

// Named changes the flag of the field just declared, for settings whose flag in the field's
// established systems does not follow from their YAML key.
func (f *Field) Named(flag string) *Field {
	f.Flag = flag
	return f
}

// Masked marks the field just declared as a secret.
func (f *Field) Masked() *Field {
	f.Secret = true
	return f
}

// Expert leaves the field just declared out of the short help.
func (f *Field) Expert() *Field {
	f.Advanced = true
	return f
}

// OneOf restricts the field just declared to values.
func (f *Field) OneOf(values ...string) *Field {
	f.Allowed = values
	set := f.Set
	f.Set = func(v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("%q is not one of %s", v, strings.Join(values, ", "))
		}
		return set(v)
	}
	return f
}

func (s *Set) add(name, kind, def, doc string, set func(string) error, value func() string) *Field {
	path := s.prefix + strings.ReplaceAll(name, "-", "_")
	f := &Field{Path: path, Flag: strings.ReplaceAll(path, "_", "-"), Type: kind, Default: def, Doc: doc, Set: set, Value: value}
	s.shared.fields = append(s.shared.fields, f)
	return f
}

// String declares a string.
func (s *Set) String(p *string, name, def, doc string) *Field {
	*p = def
	return s.add(name, typeString, def, doc, func(v string) error { *p = v; return nil }, func() string { return *p })
}

// Secret declares a secret. It has no default.
func (s *Set) Secret(p *Secret, name, doc string) *Field {
	*p = ""
	set := func(v string) error { *p = Secret(v); return nil }
	return s.add(name, typeSecret, "", doc, set, func() string { return p.Reveal() }).Masked()
}

// Strings declares a list; its text form is separated by commas.
func (s *Set) Strings(p *[]string, name string, def []string, doc string) *Field {
	*p = def
	f := s.add(name, typeStrings, strings.Join(def, ","), doc, func(v string) error {
		*p = ParseStrings(v)
		return nil
	}, func() string { return strings.Join(*p, ",") })
	f.setList = func(v []string) error { *p = v; return nil }
	f.list = func() []string { return *p }
	return f
}

// Bool declares a switch.
func (s *Set) Bool(p *bool, name string, def bool, doc string) *Field {
	*p = def
	f := s.add(name, typeBool, strconv.FormatBool(def), doc, func(v string) error { return parse(p, v, ParseBool) },
		func() string { return strconv.FormatBool(*p) })
	f.bare = "true"
	return f
}

// Int declares an int.
func (s *Set) Int(p *int, name string, def int, doc string) *Field {
	*p = def
	return s.add(name, typeInt, strconv.Itoa(def), doc, func(v string) error { return parse(p, v, ParseInt) },
		func() string { return strconv.Itoa(*p) })
}

// Float declares a float64.
func (s *Set) Float(p *float64, name string, def float64, doc string) *Field {
	*p = def
	return s.add(name, typeFloat, FormatFloat(def), doc, func(v string) error { return parse(p, v, ParseFloat) },
		func() string { return FormatFloat(*p) })
}

// Duration declares a time.Duration. Text forms are Prometheus's (1h30m, 2d) and Go's.
func (s *Set) Duration(p *time.Duration, name string, def time.Duration, doc string) *Field {
	*p = def
	return s.add(name, typeDuration, FormatDuration(def), doc, func(v string) error { return parse(p, v, ParseDuration) },
		func() string { return FormatDuration(*p) })
}

// parse sets *p only when v is valid.
func parse[T any](p *T, v string, f func(string) (T, error)) error {
	x, err := f(v)
	if err == nil {
		*p = x
	}
	return err
}

// Resolve has f called when Load has read all values, before they are checked: it may replace some.
func (s *Set) Resolve(f func(*Set) error) { s.shared.resolve = f }

// Fields returns the declared settings in order.
func (s *Set) Fields() []*Field { return s.shared.fields }

// field returns the field with the given path, nil if there is none.
func (s *Set) field(path string) *Field {
	for _, f := range s.shared.fields {
		if f.Path == path {
			return f
		}
	}
	return nil
}

// Apply sets one field by flag name or YAML path.
func (s *Set) Apply(name, value string) error {
	for _, f := range s.shared.fields {
		if f.Flag == name || f.Path == name {
			if err := f.set(value, "applied"); err != nil {
				return fmt.Errorf("setting %s: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("unknown setting %q", name)
}

// wants says what a value of f looks like.
func (f *Field) wants() string {
	if len(f.Allowed) > 0 {
		return "one of " + strings.Join(f.Allowed, ", ")
	}
	switch f.Type {
	case typeInt:
		return "an integer"
	case typeFloat:
		return "a number"
	case typeBool:
		return "true or false"
	case typeDuration:
		return "a duration like 30s, 5m, 1h30m or 2d"
	case typeStrings:
		return "a list, or text separated by commas"
	case typeDocument:
		return "YAML"
	}
	return "text"
}

// set gives f a value and remembers who did. The error names what is wanted, and never a secret.
func (f *Field) set(value, source string) error {
	if f.Secret && value == mask {
		return fmt.Errorf("%s is how a secret is printed, not a secret", mask)
	}
	if err := f.Set(value); err != nil {
		if f.Secret {
			return fmt.Errorf("the value is not accepted; wanted is %s", f.wants())
		}
		return err
	}
	f.Source = source
	return nil
}
