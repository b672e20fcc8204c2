package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// forbiddenNames are package names that say nothing, and so collect everything.
func forbiddenNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "lib", "types"}
}

func checkPackageNames(t *Tree) []Finding {
	var found []Finding
	for _, p := range t.Packages {
		last := p.Rel[strings.LastIndexByte(p.Rel, '/')+1:]
		if slices.Contains(forbiddenNames(), p.Name) || slices.Contains(forbiddenNames(), last) {
			found = append(found, Finding{Key: p.Rel, What: "a package named " + last + " owns nothing in particular",
				Remedy: "name the noun it owns, or move its parts to where they are used"})
		}
		if p.Top() == "pkg" && strings.Count(p.Rel, "/") > 2 {
			found = append(found, Finding{Key: p.Rel, What: "a package three directories below pkg",
				Remedy: "at most pkg/room/part; a part that needs parts is a room"})
		}
	}
	return found
}

func checkPackageDocs(t *Tree) []Finding {
	docs := map[*Package][]*File{}
	written := map[*Package]bool{}
	for f := range t.production {
		written[f.Pkg] = true
		if f.AST.Doc != nil {
			docs[f.Pkg] = append(docs[f.Pkg], f)
		}
	}
	var found []Finding
	for _, p := range t.Packages {
		switch files := docs[p]; {
		case !written[p]: // generated code or tests only
		case len(files) == 0:
			found = append(found, Finding{Key: p.Rel, What: "package " + p.Name + " has no doc comment",
				Remedy: "say in one sentence what it owns: // Package " + p.Name + " owns ..."})
		case len(files) > 1:
			found = append(found, Finding{Key: p.Rel, What: fmt.Sprintf("doc comments in %s and %s", files[0].Path, files[1].Path),
				Remedy: "keep one; readers and go doc expect one text"})
		case p.Name != "main" && !strings.HasPrefix(files[0].AST.Doc.Text(), "Package "+p.Name+" "):
			found = append(found, Finding{Key: p.Rel, What: "the doc comment does not begin with \"Package " + p.Name + "\"",
				Remedy: "begin it so; if it was meant for something else, put an empty line below it"})
		}
	}
	return found
}

// plainMethods are documented by the interface they are named after.
func plainMethods() []string {
	return []string{"String", "Error", "Unwrap", "Is", "As", "Len", "Less", "Swap", "Read", "Write", "Close", "ServeHTTP",
		"Describe", "Collect", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "MarshalYAML", "UnmarshalYAML",
		"LogValue", "GoString", "Format", "Set"}
}

func checkExportedDocs(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		if f.Pkg.Name == "main" {
			continue
		}
		bare := func(n ast.Node, name string) {
			found = append(found, Finding{Key: f.Path + ":" + name, Line: t.line(n), What: name + " has no doc comment",
				Remedy: "say what its signature cannot: units, ownership, errors; or unexport it"})
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				r := receiver(d)
				hidden := r != "" && (!ast.IsExported(r) || slices.Contains(plainMethods(), d.Name.Name))
				if d.Name.IsExported() && d.Doc == nil && !hidden {
					bare(d, symbol(d))
				}
			case *ast.GenDecl:
				bareSpecs(d, bare)
			}
		}
	}
	return found
}

// bareSpecs reports exported types, constants and variables without a comment. A comment on a
// group covers its constants and variables; every type needs its own.
func bareSpecs(d *ast.GenDecl, bare func(ast.Node, string)) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
				bare(s, s.Name.Name)
			}
		case *ast.ValueSpec:
			if d.Tok == token.IMPORT || d.Doc != nil || s.Doc != nil || s.Comment != nil {
				continue
			}
			for _, name := range s.Names {
				if name.IsExported() {
					bare(s, name.Name)
					break
				}
			}
		}
	}
}
