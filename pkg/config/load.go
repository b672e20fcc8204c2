package config

import (
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// maxFileBytes bounds the configuration file; a large one has some tens of kilobytes.
const maxFileBytes = 4 << 20

// Request is what the command line asks for beside settings.
type Request struct {
	File      string // the YAML file that was read; empty if none
	ExpandEnv bool   // whether ${VAR} was replaced in it
	Check     bool   // print the effective plan and exit
	Help      bool   // print the settings most people need
	HelpAll   bool   // print every setting
	Version   bool   // print the version
	Print     string // print the configuration in this mode (see Set.Print) and exit; empty: no
}

// Declare is part of Declarer. These flags have no key in the file, and only the first two have an
// environment variable.
func (r *Request) Declare(s *Set) {
	s.String(&r.File, "config.file", "", "YAML file to read. Flags and environment win over it.")
	s.Bool(&r.ExpandEnv, "config.expand-env", false, "Expand ${VAR} and ${VAR:default} in the values of the file from the environment.")
	s.Bool(&r.Check, "config.check", false, "Check the configuration, print it as it takes effect, and exit.")
	s.String(&r.Print, "print.config", "", "Print the configuration and exit: effective, diff (what differs from the defaults), defaults, reference or schema.").
		OneOf(append([]string{""}, modeNames()...)...).bare = ModeEffective
	s.Bool(&r.Help, "help", false, "Print the settings most people need.")
	s.Bool(&r.HelpAll, "help-all", false, "Print every setting.")
	s.Bool(&r.Version, "version", false, "Print the version and exit.")
}

// loader carries one Load.
type loader struct {
	set      *Set
	own      *Set // the flags of Request
	problems strict.Problems
	unread   []*Field // fields with a value that did not parse
}

// assignment is one flag of the command line.
type assignment struct {
	field *Field
	value string
}

// Load fills the fields of set: defaults, then the YAML file, then environment variables
// (AMPHORA_ and the flag in upper snake case; an empty one counts as unset), then args, the
// command line without the program's name. Later ones win; a list flag may be repeated. Then the
// mounted parts check themselves. Every problem found is in the one error, of kind Invalid, with
// file and line. When help or the version is asked for nothing else is read.
func Load(set *Set, args []string, env func(string) string) (*Request, error) {
	req := new(Request)
	l := &loader{set: set, own: NewSet()}
	l.own.Mount("", req)
	root := set.arrange()

	given := l.parseArgs(args)
	// Only these two: AMPHORA_VERSION, say, is a name that images use for themselves.
	l.fromEnv(env, l.own.field("config.file"), l.own.field("config.expand_env"))
	l.assign(l.own, given)
	if req.Help || req.HelpAll || req.Version {
		return req, nil
	}
	if req.File != "" {
		var expand func(string) string
		if req.ExpandEnv {
			expand = env
		}
		l.readFile(root, req.File, expand)
	}
	l.fromEnv(env, set.shared.fields...)
	l.assign(set, given)
	if set.shared.resolve != nil && l.problems.Err() == nil {
		if err := set.shared.resolve(set); err != nil {
			l.problems.Add("settings", "%v", err)
			return req, l.problems.Err()
		}
	}
	set.validate(l.unread, &l.problems)
	return req, l.problems.Err()
}

// LoadYAML fills the fields of set from the YAML document data alone; name is its file, for
// messages. The parts do not check themselves.
func (s *Set) LoadYAML(name string, data []byte) error {
	l := &loader{set: s}
	l.readDoc(s.arrange(), strict.Parse(name, data, nil, &l.problems))
	return l.problems.Err()
}

// parseArgs reads -name=value, -name value and, for switches, -name; with one dash or two.
func (l *loader) parseArgs(args []string) []assignment {
	var out []assignment
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if name == arg || name == "" {
			l.problems.Add("command line", "argument %q is not a setting; a setting is written -name=value", arg)
			continue
		}
		name, value, has := strings.Cut(name, "=")
		f := l.byFlag(name)
		if f == nil {
			l.problems.Add("flag -"+name, "unknown%s", strict.Suggest(name, l.flags()))
			if !has && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++ // most likely its value
			}
			continue
		}
		switch {
		case has:
		case f.bare != "":
			value = f.bare
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			l.problems.Add("flag -"+name, "has no value; wanted is %s", f.wants())
			continue
		}
		out = append(out, assignment{f, value})
	}
	return out
}

func (l *loader) byFlag(name string) *Field {
	if name == "h" {
		name = "help"
	}
	for _, s := range []*Set{l.own, l.set} {
		for _, f := range s.shared.fields {
			if f.Flag == name {
				return f
			}
		}
	}
	return nil
}

func (l *loader) flags() []string {
	var out []string
	for _, s := range []*Set{l.own, l.set} {
		for _, f := range s.shared.fields {
			out = append(out, f.Flag)
		}
	}
	return out
}

// assign gives the fields of s what the command line says. A list given several times is the
// items of all.
func (l *loader) assign(s *Set, given []assignment) {
	for _, f := range s.shared.fields {
		var values []string
		for _, a := range given {
			if a.field == f {
				values = append(values, a.value)
			}
		}
		if len(values) == 0 {
			continue
		}
		value := values[len(values)-1]
		if f.setList != nil {
			value = strings.Join(values, ",")
		}
		l.put(f, value, "flag -"+f.Flag)
	}
}

func (l *loader) fromEnv(env func(string) string, fields ...*Field) {
	for _, f := range fields {
		if v := env(f.Env()); v != "" {
			l.put(f, v, "environment "+f.Env())
		}
	}
}

func (l *loader) put(f *Field, value, source string) {
	if err := f.set(value, source); err != nil {
		l.unread = append(l.unread, f)
		l.problems.Add(source, "%v", err)
	}
}

func (l *loader) readFile(root *tree, name string, env func(string) string) {
	data, err := readBounded(name, maxFileBytes)
	if err != nil {
		l.problems.Add("flag -config.file", "%v", err)
		return
	}
	l.readDoc(root, strict.Parse(name, data, env, &l.problems))
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return data, nil
}

func (l *loader) readDoc(root *tree, doc *strict.Doc) { l.section(root, doc.Root(), doc) }

// section reads the keys of one mapping.
func (l *loader) section(t *tree, n *yaml.Node, doc *strict.Doc) {
	for _, e := range doc.Entries(n, t.path) {
		kid := t.by[e.Key]
		switch {
		case kid == nil && t.path == "" && e.Key == derivedKey:
			// Part of what /config prints, so that its output can be loaded again.
		case kid == nil:
			doc.Problems.Add(doc.Where(e.Line), "unknown key %q%s", join(t.path, e.Key), l.suggest(t, e.Key))
		case kid.field == nil:
			l.section(kid, e.Value, doc)
		case !strict.IsNull(e.Value):
			l.value(kid.field, e, doc)
		}
	}
}

// value gives f the value of e.
func (l *loader) value(f *Field, e strict.Entry, doc *strict.Doc) {
	where := doc.Where(e.Line)
	if f.document != nil {
		if !f.document.Read(doc, e.Value, f.Path) {
			l.unread = append(l.unread, f)
			return
		}
		f.Source = where
		return
	}
	if f.setList != nil {
		items, isList, ok := doc.List(e.Value, f.Path)
		if !ok {
			l.unread = append(l.unread, f)
			return
		}
		if isList {
			if err := f.setList(items); err != nil {
				l.unread = append(l.unread, f)
				doc.Problems.Add(where, "%s: %v", f.Path, err)
			}
			f.Source = where
			return
		}
	}
	text, ok := doc.Text(e.Value, f.Path, f.wants())
	if !ok {
		l.unread = append(l.unread, f)
		return
	}
	if err := f.set(text, where); err != nil {
		l.unread = append(l.unread, f)
		doc.Problems.Add(where, "%s: %v", f.Path, err)
	}
}

// suggest looks for what was meant by an unknown key: a near name in the same section, or the
// same name in another.
func (l *loader) suggest(t *tree, key string) string {
	names := make([]string, len(t.kids))
	for i, k := range t.kids {
		names[i] = k.name
	}
	if s := strict.Suggest(key, names); s != "" {
		return s
	}
	for _, f := range l.set.shared.fields {
		if f.Path == key || strings.HasSuffix(f.Path, "."+key) {
			return fmt.Sprintf("; did you mean %q?", f.Path)
		}
	}
	return ""
}
