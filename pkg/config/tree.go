package config

import "strings"

// tree is the fields arranged as they stand in a YAML file.
type tree struct {
	name  string
	path  string
	field *Field // nil for a section
	kids  []*tree
	by    map[string]*tree // kids by name
}

// arrange builds the tree of s. Two settings that share a path, a flag or an environment variable
// are a bug of the program, as is a setting that has others below it.
func (s *Set) arrange() *tree {
	root := &tree{by: map[string]*tree{}}
	flags, envs := map[string]bool{}, map[string]bool{}
	for _, f := range s.shared.fields {
		if flags[f.Flag] || envs[f.Env()] {
			panic("BUG: the flag -" + f.Flag + " or its environment variable is declared twice")
		}
		flags[f.Flag], envs[f.Env()] = true, true
		t := root
		for name := range strings.SplitSeq(f.Path, ".") {
			if t.field != nil {
				panic("BUG: the setting " + t.field.Path + " has the setting " + f.Path + " below it")
			}
			kid := t.by[name]
			if kid == nil {
				kid = &tree{name: name, path: join(t.path, name), by: map[string]*tree{}}
				t.kids, t.by[name] = append(t.kids, kid), kid
			}
			t = kid
		}
		if t.field != nil || len(t.kids) > 0 {
			panic("BUG: the setting " + f.Path + " is declared twice, or has others below it")
		}
		t.field = f
	}
	return root
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Env returns the name of the environment variable that sets f.
func (f *Field) Env() string {
	return "AMPHORA_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(f.Flag))
}
