package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/tools/house"
)

// errorID is one place that raises an error with an id.
type errorID struct{ id, kind, text, room string }

// errorIDs finds the ids in the source: literal ids passed to errs.WithID and errs.Limit, or to
// anything else that is declared as an errs.ID.
func errorIDs(tree *house.Tree) []errorID {
	takers := idTakers(tree)
	var all []errorID
	for _, f := range product(tree) {
		add := func(e ast.Expr, kind, text string) {
			if id, ok := literal(e); ok && id != "" {
				all = append(all, errorID{id, kind, text, f.Pkg.Room()})
			}
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				fromCall(n, takers[f.Pkg.ImportPath], add)
			case *ast.CompositeLit:
				fromRows(n, add)
			case *ast.ValueSpec:
				for _, v := range n.Values {
					if isID(n.Type) {
						add(v, "", "")
					}
				}
			case *ast.FuncDecl:
				if i := resultIndex(n.Type); i >= 0 && n.Body != nil {
					fromReturns(n.Body, i, add)
				}
			}
			return true
		})
	}
	return all
}

func product(tree *house.Tree) []*house.File {
	var all []*house.File
	for _, f := range tree.Files {
		if !f.Test && !f.Generated && f.Pkg.Top() == "pkg" {
			all = append(all, f)
		}
	}
	return all
}

// idTakers lists, for each package, the functions that have a parameter of type errs.ID, with its
// index.
func idTakers(tree *house.Tree) map[string]map[string]int {
	takers := map[string]map[string]int{}
	for _, f := range product(tree) {
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			i := 0
			for _, p := range fn.Type.Params.List {
				if isID(p.Type) {
					if takers[f.Pkg.ImportPath] == nil {
						takers[f.Pkg.ImportPath] = map[string]int{}
					}
					takers[f.Pkg.ImportPath][fn.Name.Name] = i
				}
				i += max(1, len(p.Names))
			}
		}
	}
	return takers
}

func fromCall(call *ast.CallExpr, takers map[string]int, add func(ast.Expr, string, string)) {
	switch name := called(call); name {
	case "errs.WithID":
		if len(call.Args) > 3 {
			add(call.Args[1], kindName(call.Args[0]), format(call.Args[3]))
		}
	case "errs.Limit":
		if len(call.Args) > 4 {
			add(call.Args[1], kindName(call.Args[0]), format(call.Args[4]))
		}
	case "errs.ID":
		add(call.Args[0], "", "")
	default:
		name = name[strings.LastIndexByte(name, '.')+1:]
		if i, ok := takers[name]; ok && i < len(call.Args) {
			kind, text := "", ""
			for j, a := range call.Args {
				kind += kindName(a)
				if s := format(a); j != i && text == "" && strings.Contains(s, " ") {
					text = s
				}
			}
			add(call.Args[i], kind, text)
		}
	}
}

// fromRows reads a list of structs that are declared in place, or in the same file, and have an
// errs.ID.
func fromRows(lit *ast.CompositeLit, add func(ast.Expr, string, string)) {
	list, ok := lit.Type.(*ast.ArrayType)
	if !ok {
		return
	}
	row := structType(list.Elt)
	if row == nil {
		return
	}
	at, name, i := -1, "", 0
	for _, field := range row.Fields.List {
		if isID(field.Type) && len(field.Names) > 0 {
			at, name = i, field.Names[0].Name
		}
		i += max(1, len(field.Names))
	}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		cells, ok := e.(*ast.CompositeLit)
		if !ok || at < 0 {
			continue
		}
		for j, c := range cells.Elts {
			if kv, ok := c.(*ast.KeyValueExpr); ok {
				if key, ok := kv.Key.(*ast.Ident); ok && key.Name == name {
					add(kv.Value, "", "")
				}
			} else if j == at {
				add(c, "", "")
			}
		}
	}
}

// structType returns the struct that e is or names, nil if it is another type or of another file.
func structType(e ast.Expr) *ast.StructType {
	if id, ok := e.(*ast.Ident); ok && id.Obj != nil {
		if spec, ok := id.Obj.Decl.(*ast.TypeSpec); ok {
			e = spec.Type
		}
	}
	row, _ := e.(*ast.StructType)
	return row
}

func fromReturns(body *ast.BlockStmt, i int, add func(ast.Expr, string, string)) {
	ast.Inspect(body, func(n ast.Node) bool {
		if _, inner := n.(*ast.FuncLit); inner {
			return false
		}
		if r, ok := n.(*ast.ReturnStmt); ok && i < len(r.Results) {
			add(r.Results[i], "", "")
		}
		return true
	})
}

func resultIndex(fn *ast.FuncType) int {
	if fn.Results == nil {
		return -1
	}
	i := 0
	for _, r := range fn.Results.List {
		if isID(r.Type) {
			return i
		}
		i += max(1, len(r.Names))
	}
	return -1
}

func isID(e ast.Expr) bool { return e != nil && dotted(e) == "errs.ID" }

// called returns "pkg.Func" or "Func" of a call.
func called(call *ast.CallExpr) string { return dotted(call.Fun) }

func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x := dotted(e.X); x != "" {
			return x + "." + e.Sel.Name
		}
		return e.Sel.Name
	}
	return ""
}

// kindName returns the table's name of a kind written as errs.Name, or "".
func kindName(e ast.Expr) string {
	name, ok := strings.CutPrefix(dotted(e), "errs.")
	if !ok {
		return ""
	}
	for _, k := range errs.Kinds() {
		if strings.EqualFold(strings.ReplaceAll(k.String(), " ", ""), name) {
			return k.String()
		}
	}
	return ""
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// format returns the text of a format string with its verbs as an ellipsis.
func format(e ast.Expr) string {
	s, ok := literal(e)
	if !ok {
		return ""
	}
	return regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`).ReplaceAllString(s, "…")
}
