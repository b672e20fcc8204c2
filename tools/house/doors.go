package house

import (
	"go/ast"
	"slices"
	"strings"
)

// door names the rooms through which a heavy library enters. Tests are free.
type door struct {
	library string   // import path; a trailing slash covers everything below it
	symbols []string // if set, only these are guarded, and the types of the library may be used anywhere
	rooms   []string
	why     string
}

func doors() []door {
	const oneBucket = "object stores differ in errors, retries and conditional writes; bucket hides that once"
	const oneGossip = "a process joins gossip once; services get a ring, never a socket"
	return []door{
		{"github.com/thanos-io/objstore/providers/", nil, []string{"bucket"}, oneBucket},
		{"github.com/minio/minio-go/", nil, []string{"bucket"}, oneBucket},
		{"github.com/aws/aws-sdk-go-v2/service/s3", nil, []string{"bucket"}, oneBucket},
		{"cloud.google.com/go/storage", nil, []string{"bucket"}, oneBucket},
		{"github.com/Azure/azure-sdk-for-go/", nil, []string{"bucket"}, oneBucket},
		{"github.com/prometheus/prometheus/promql", []string{"NewEngine", "Engine", "EngineOpts"}, []string{"engine"},
			"the engine's options decide what a query may cost; they are set in one place"},
		{"github.com/hashicorp/memberlist", nil, []string{"app", "transport"}, oneGossip},
		{"github.com/grafana/dskit/kv/memberlist", []string{"NewKV", "NewKVInitService", "NewClient", "KV", "KVConfig", "KVInitService"},
			[]string{"app", "transport"}, oneGossip}, // what is gossiped may say how it merges
	}
}

func (d door) leads(path string) bool {
	return path == d.library || strings.HasSuffix(d.library, "/") && strings.HasPrefix(path, d.library)
}

func checkDoors(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		if top := f.Pkg.Top(); top != "pkg" && top != "cmd" {
			continue
		}
		for _, imp := range f.AST.Imports {
			for _, d := range doors() {
				at, used := d.use(f, imp)
				if at == nil || slices.Contains(d.rooms, f.Pkg.Room()) {
					continue
				}
				found = append(found, Finding{Key: f.Path + ":" + used, Line: t.line(at), What: "uses " + used + ": " + d.why,
					Remedy: "only pkg/" + strings.Join(d.rooms, " and pkg/") + " may; take what you need through that room"})
			}
		}
	}
	return found
}

// use returns where f, by an import of it, uses what the door leads to, nil if it does not, and what that is.
func (d door) use(f *File, imp *ast.ImportSpec) (at ast.Node, used string) {
	path := strings.Trim(imp.Path.Value, `"`)
	if !d.leads(path) {
		return nil, ""
	}
	if d.symbols == nil {
		return imp, path
	}
	if sel := firstUse(f, path, d.symbols); sel != nil {
		return sel, path + "." + sel.Sel.Name
	}
	return nil, ""
}

// firstUse returns the first selector of one of symbols on the package imported from path.
func firstUse(f *File, path string, symbols []string) *ast.SelectorExpr {
	for sel := range selectors(f, path) {
		if slices.Contains(symbols, sel.Sel.Name) {
			return sel
		}
	}
	return nil
}

// selectors yields every pkg.Name of f where pkg is the package imported from path.
func selectors(f *File, path string) func(func(*ast.SelectorExpr) bool) {
	return func(yield func(*ast.SelectorExpr) bool) {
		name := importName(f, path)
		if name == "" {
			return
		}
		stopped := false
		ast.Inspect(f.AST, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || stopped {
				return !stopped
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == name && id.Obj == nil {
				stopped = !yield(sel)
			}
			return !stopped
		})
	}
}

// importName returns the name under which f imports path, or "".
func importName(f *File, path string) string {
	for _, imp := range f.AST.Imports {
		if strings.Trim(imp.Path.Value, `"`) != path {
			continue
		}
		if imp.Name != nil {
			return imp.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}
