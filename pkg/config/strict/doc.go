package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of the values read from one document. Aliases make a short document long: without a bound
// a kilobyte of them can ask for years of work. A short name that stands for a page of limits is
// some visits for each byte.
const (
	fewVisits     = 100_000
	visitsPerByte = 20
	maxVisits     = 10_000_000
)

// maxMerges bounds how deep merge keys (<<) may nest, so that one that merges itself ends.
const maxMerges = 32

// Doc is one parsed document.
type Doc struct {
	// Problems receives everything wrong with the document.
	Problems *Problems

	name   string
	root   *yaml.Node
	env    func(string) string // nil: ${VAR} is plain text
	visits int                 // that are left
}

// Entry is one key of a mapping and its value.
type Entry struct {
	Key   string
	Line  int
	Value *yaml.Node
}

// Parse reads the one document of data. name is the file, for messages. If env is not nil, ${VAR}
// and ${VAR:default} in values are replaced by what it returns. What does not parse is noted in
// problems, and the document is then empty.
func Parse(name string, data []byte, env func(string) string, problems *Problems) *Doc {
	d := &Doc{Problems: problems, name: name, env: env, visits: min(fewVisits+visitsPerByte*len(data), maxVisits)}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF): // an empty file
		return d
	case err != nil:
		problems.Add(name, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return d
	}
	if err := dec.Decode(&second); err == nil {
		problems.Add(d.Where(first(&second).Line), "a second document begins here; the file must hold one")
	} else if !errors.Is(err, io.EOF) {
		problems.Add(name, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	d.root = first(&root)
	return d
}

// first returns what the document n holds.
func first(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		return n.Content[0]
	}
	return n
}

// visit counts a value read at line, and says whether it may be.
func (d *Doc) visit(line int) bool {
	if d.visits--; d.visits == -1 {
		d.Problems.Add(d.Where(line), "the document is too long once its aliases are followed")
	}
	return d.visits >= 0
}

// Root returns the document's top value, nil if it is empty.
func (d *Doc) Root() *yaml.Node { return d.root }

// Where returns "file:line".
func (d *Doc) Where(line int) string { return fmt.Sprintf("%s:%d", d.name, line) }

// follow resolves an alias; the parser lets one point at an alias only through a mapping or list.
func follow(n *yaml.Node) *yaml.Node {
	for range maxMerges {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// IsNull says whether n has no value, which everywhere means: as if the key were absent.
func IsNull(n *yaml.Node) bool {
	n = follow(n)
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// Shape names what n is, for messages.
func Shape(n *yaml.Node) string {
	switch n = follow(n); {
	case n == nil:
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "keys of its own"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

// Entries returns the keys of the mapping n in the order they stand in, with merge keys (<<)
// resolved. A repeated key and a value that is no mapping are problems; path names the value.
func (d *Doc) Entries(n *yaml.Node, path string) []Entry { return d.entries(n, path, 0) }

func (d *Doc) entries(n *yaml.Node, path string, depth int) []Entry {
	if n = follow(n); IsNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.Problems.Add(d.Where(n.Line), "%swants keys below it, but has %s", label(path), Shape(n))
		return nil
	}
	out := make([]Entry, 0, len(n.Content)/2)
	seen := make(map[string]int, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), n.Content[i+1]
		if !d.visit(n.Line) {
			return out
		}
		switch {
		case k == nil || k.Kind != yaml.ScalarNode:
			d.Problems.Add(d.Where(n.Content[i].Line), "%sa key must be plain text", label(path))
		case k.ShortTag() == "!!merge":
			merged = append(merged, v)
		case seen[k.Value] > 0:
			d.Problems.Add(d.Where(k.Line), "%skey %q stands here twice, first on line %d", label(path), k.Value, seen[k.Value])
		default:
			seen[k.Value] = k.Line
			out = append(out, Entry{k.Value, k.Line, v})
		}
	}
	for _, m := range merged {
		out = d.merge(out, seen, m, path, depth)
	}
	return out
}

// merge adds the keys of m, a mapping or a list of mappings, that seen lacks; what is explicit or
// earlier wins.
func (d *Doc) merge(out []Entry, seen map[string]int, m *yaml.Node, path string, depth int) []Entry {
	if m = follow(m); m == nil {
		return out
	}
	if depth >= maxMerges {
		d.Problems.Add(d.Where(m.Line), "%smerge keys nest deeper than %d", label(path), maxMerges)
		return out
	}
	parts := []*yaml.Node{m}
	if m.Kind == yaml.SequenceNode {
		parts = m.Content
	}
	for _, part := range parts {
		if !d.visit(m.Line) {
			return out
		}
		for _, e := range d.entries(part, path, depth+1) {
			if seen[e.Key] == 0 {
				seen[e.Key] = e.Line
				out = append(out, e)
			}
		}
	}
	return out
}

func label(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

// Text returns the text of the scalar n with variables replaced. Anything wrong is a problem, and
// ok is false. wanted says what should stand there: "int".
func (d *Doc) Text(n *yaml.Node, path, wanted string) (text string, ok bool) {
	n = follow(n)
	if n == nil || n.Kind != yaml.ScalarNode {
		line := 0
		if n != nil {
			line = n.Line
		}
		d.Problems.Add(d.Where(line), "%swants %s, but has %s", label(path), wanted, Shape(n))
		return "", false
	}
	if d.env == nil {
		return n.Value, true
	}
	text, err := expand(n.Value, d.env)
	if err != nil {
		d.Problems.Add(d.Where(n.Line), "%s%v", label(path), err)
		return "", false
	}
	return text, true
}

// List returns the texts of a list; list is false if n is not one, and its text should be read.
func (d *Doc) List(n *yaml.Node, path string) (texts []string, list, ok bool) {
	n = follow(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil, false, true
	}
	ok = true
	texts = make([]string, 0, len(n.Content))
	for i, item := range n.Content {
		if !d.visit(n.Line) {
			return texts, true, false
		}
		text, good := d.Text(item, fmt.Sprintf("%s[%d]", path, i), "text")
		texts, ok = append(texts, text), ok && good
	}
	return texts, true, ok
}

// Items returns the values of the list n with aliases followed. Anything but a list is a problem,
// and ok is false.
func (d *Doc) Items(n *yaml.Node, path string) (items []*yaml.Node, ok bool) {
	if n = follow(n); IsNull(n) {
		return nil, true
	}
	if n.Kind != yaml.SequenceNode {
		d.Problems.Add(d.Where(n.Line), "%swants a list, but has %s", label(path), Shape(n))
		return nil, false
	}
	items = make([]*yaml.Node, 0, len(n.Content))
	for _, item := range n.Content {
		if !d.visit(n.Line) {
			return items, false
		}
		if item = follow(item); item != nil {
			items = append(items, item)
		}
	}
	return items, true
}

// expand replaces ${VAR} and ${VAR:default}; $${ stands for ${ itself. Only values are expanded,
// after parsing, so what a variable holds can never become YAML.
func expand(s string, env func(string) string) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		if i > 0 && s[i-1] == '$' {
			b.WriteString(s[:i-1] + "${")
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		body, rest, closed := strings.Cut(s[i+2:], "}")
		name, def, hasDef := strings.Cut(body, ":")
		if !isName(name) { // ${1} of a relabel rule, and the like
			b.WriteString("${")
			s = s[i+2:]
			continue
		}
		if !closed {
			return "", fmt.Errorf("${%s has no closing brace", name)
		}
		v := env(name)
		if v == "" {
			if v = def; !hasDef {
				return "", fmt.Errorf("the environment variable %s is empty or not set; write ${%s:} if it may be empty", name, name)
			}
		}
		b.WriteString(v)
		s = rest
	}
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
