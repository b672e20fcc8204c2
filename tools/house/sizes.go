package house

import (
	"fmt"
	"go/ast"
	"go/token"
)

// Sizes is how large things may be. Tables do not count: the lines of a literal list or map
// without functions in it, and of top-level variables, may be as many as there are rows.
type Sizes struct {
	File, Func, TestFunc int // lines
	Params               int
	Fields               int
	Methods              int
}

func houseSizes() Sizes {
	return Sizes{File: 799, Func: 79, TestFunc: 120, Params: 6, Fields: 30, Methods: 5}
}

func checkFileSizes(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		lines := f.Lines
		for _, d := range f.AST.Decls {
			if g, ok := d.(*ast.GenDecl); ok && (g.Tok == token.VAR || g.Tok == token.CONST) {
				lines -= t.span(g)
			}
		}
		if lines > t.Sizes.File {
			found = append(found, Finding{Key: f.Path, What: fmt.Sprintf("%d lines, at most %d", lines, t.Sizes.File),
				Remedy: "split it by noun: one type or one step in each file"})
		}
	}
	return found
}

func checkFuncSizes(t *Tree) []Finding {
	var found []Finding
	for f := range t.handwritten {
		most := t.Sizes.Func
		if f.Test {
			most = t.Sizes.TestFunc
		}
		for fn := range funcs(f) {
			if lines := t.span(fn) - t.tableLines(fn); lines > most {
				found = append(found, Finding{Key: f.Path + ":" + symbol(fn), Line: t.line(fn),
					What:   fmt.Sprintf("function of %d lines, at most %d", lines, most),
					Remedy: "give its steps names; in a test, move the story to a script or a helper"})
			}
		}
	}
	return found
}

// tableLines counts the lines of fn that are rows of data.
func (t *Tree) tableLines(fn *ast.FuncDecl) int {
	n := 0
	ast.Inspect(fn, func(node ast.Node) bool {
		lit, ok := node.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch lit.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
		default:
			return true
		}
		code := false
		ast.Inspect(lit, func(in ast.Node) bool {
			_, isFunc := in.(*ast.FuncLit)
			code = code || isFunc
			return !code
		})
		if !code {
			n += t.span(lit) - 1
		}
		return code
	})
	return n
}

func checkParams(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		for fn := range funcs(f) {
			if n := fn.Type.Params.NumFields(); n > t.Sizes.Params {
				found = append(found, Finding{Key: f.Path + ":" + symbol(fn), Line: t.line(fn),
					What:   fmt.Sprintf("%d parameters, at most %d", n, t.Sizes.Params),
					Remedy: "pass a struct whose fields name them"})
			}
		}
	}
	return found
}

func checkStructFields(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		for spec := range types(f) {
			s, ok := spec.Type.(*ast.StructType)
			if ok && fields(s.Fields) > t.Sizes.Fields {
				found = append(found, Finding{Key: f.Path + ":" + spec.Name.Name, Line: t.line(spec),
					What:   fmt.Sprintf("struct of %d fields, at most %d", fields(s.Fields), t.Sizes.Fields),
					Remedy: "group the fields that change together into structs of their own"})
			}
		}
	}
	return found
}

func checkInterfaceMethods(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		for spec := range types(f) {
			i, ok := spec.Type.(*ast.InterfaceType)
			if ok && fields(i.Methods) > t.Sizes.Methods {
				found = append(found, Finding{Key: f.Path + ":" + spec.Name.Name, Line: t.line(spec),
					What:   fmt.Sprintf("interface of %d methods, at most %d", fields(i.Methods), t.Sizes.Methods),
					Remedy: "declare at each caller the one to three methods it calls"})
			}
		}
	}
	return found
}

// fields counts names, and embedded fields as one each.
func fields(l *ast.FieldList) int {
	n := 0
	for _, f := range l.List {
		n += max(1, len(f.Names))
	}
	return n
}

func funcs(f *File) func(func(*ast.FuncDecl) bool) {
	return func(yield func(*ast.FuncDecl) bool) {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && !yield(fn) {
				return
			}
		}
	}
}

func types(f *File) func(func(*ast.TypeSpec) bool) {
	return func(yield func(*ast.TypeSpec) bool) {
		for _, d := range f.AST.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, s := range g.Specs {
				if !yield(s.(*ast.TypeSpec)) {
					return
				}
			}
		}
	}
}

// symbol names a function as "Name" or "Type.Name".
func symbol(fn *ast.FuncDecl) string {
	if r := receiver(fn); r != "" {
		return r + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// receiver returns the name of the type fn is a method of, or "".
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	for e := fn.Recv.List[0].Type; ; {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
