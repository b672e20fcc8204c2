package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Package is what `go list` tells of one package.
type Package struct {
	ImportPath, Dir, Name                              string
	GoFiles, TestGoFiles, XTestGoFiles, IgnoredGoFiles []string
	Imports, TestImports, XTestImports                 []string

	Rel string `json:"-"` // directory relative to the module's root, with slashes
}

// Room returns the room of pkg/ that p belongs to, or "".
func (p *Package) Room() string {
	rest, ok := strings.CutPrefix(p.Rel, "pkg/")
	if !ok {
		return ""
	}
	room, _, _ := strings.Cut(rest, "/")
	return room
}

// Top returns the first directory of p's path.
func (p *Package) Top() string {
	top, _, _ := strings.Cut(p.Rel, "/")
	return top
}

// File is one parsed Go file.
type File struct {
	Path      string // relative to the module's root, with slashes
	Pkg       *Package
	Test      bool
	Generated bool
	Lines     int
	AST       *ast.File
}

// Tree is a module as the rules see it.
type Tree struct {
	Root     string
	Module   string
	Packages []*Package
	Files    []*File
	Text     []string // every file that is or could be tracked, relative to Root
	Sizes    Sizes

	fset *token.FileSet
}

// Load reads the module at root: one `go list`, then every Go file's syntax. A file that does
// not parse is left to the compiler to report.
func Load(root string) (*Tree, error) {
	t := &Tree{Root: root, Sizes: houseSizes(), fset: token.NewFileSet()}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("read the module's name: %w", err)
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	t.Module = strings.TrimSpace(strings.TrimPrefix(first, "module"))
	if err := t.list(); err != nil {
		return nil, err
	}
	for _, p := range t.Packages {
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			t.parse(p, name)
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			t.parse(p, name)
		}
	}
	t.Text, err = textFiles(root)
	return t, err
}

func (t *Tree) list() error {
	const fields = "ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles,Imports,TestImports,XTestImports"
	cmd := exec.Command("go", "list", "-e", "-mod=readonly", "-json="+fields, "./...")
	cmd.Dir = t.Root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list in %s: %w: %s", t.Root, err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(Package)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the answer of go list: %w", err)
		}
		p.Rel = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, t.Module), "/")
		t.Packages = append(t.Packages, p)
	}
}

func (t *Tree) parse(p *Package, name string) {
	path := filepath.Join(p.Dir, name)
	src, err := os.ReadFile(path)
	if err != nil {
		return
	}
	f, err := parser.ParseFile(t.fset, path, src, parser.ParseComments)
	if err != nil {
		return
	}
	t.Files = append(t.Files, &File{
		Path: p.Rel + "/" + name, Pkg: p, AST: f,
		Test:      strings.HasSuffix(name, "_test.go"),
		Generated: ast.IsGenerated(f),
		Lines:     bytes.Count(src, []byte("\n")),
	})
}

func (t *Tree) line(n ast.Node) int { return t.fset.Position(n.Pos()).Line }

// span is the number of lines n covers.
func (t *Tree) span(n ast.Node) int { return t.fset.Position(n.End()).Line - t.line(n) + 1 }

// handwritten yields the files somebody wrote; production leaves out tests too.
func (t *Tree) handwritten(yield func(*File) bool) {
	for _, f := range t.Files {
		if !f.Generated && !yield(f) {
			return
		}
	}
}

func (t *Tree) production(yield func(*File) bool) {
	for f := range t.handwritten {
		if !f.Test && !yield(f) {
			return
		}
	}
}

// textFiles asks git which files are tracked or would be; outside a work tree it takes all.
func textFiles(root string) ([]string, error) {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		names := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
		slices.Sort(names)
		return slices.Compact(names), nil
	}
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "data", ".tools"}, rel) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			names = append(names, filepath.ToSlash(rel))
		}
		return nil
	})
	return names, err
}
