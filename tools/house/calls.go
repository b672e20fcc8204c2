package house

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// homeless is a family of calls that may be made in few places only.
type homeless struct {
	pkg    string
	names  []string // a name ending in * stands for all names that begin so
	under  []string // directories in which the rule holds
	homes  []string // directories in which the calls are at home
	why    string
	remedy string
}

func homelessCalls() []homeless {
	product := []string{"cmd/", "pkg/"}
	return []homeless{
		{"net/http", []string{"Error", "NotFound"}, product, []string{"pkg/transport", "pkg/api"},
			"an error becomes a status in one place", "return an error with a kind (errs.New); the route table's loop renders it"},
		{"net/http", []string{"Handle", "HandleFunc"}, product, nil,
			"the default mux is shared with every library", "add a row to the table of routes"},
		{"google.golang.org/grpc/status", []string{"Error", "Errorf", "New", "Newf", "FromError", "Convert"}, product,
			[]string{"pkg/transport", "pkg/api"},
			"an error becomes a status in one place", "return an error with a kind (errs.New); the interceptors carry kinds between processes"},
		{"github.com/gogo/status", []string{"Error", "Errorf", "New", "Newf", "FromError", "Convert"}, product,
			[]string{"pkg/transport", "pkg/api"},
			"an error becomes a status in one place", "return an error with a kind (errs.New); the interceptors carry kinds between processes"},
		{"fmt", []string{"Print*"}, []string{"pkg/"}, nil,
			"a room does not know what stdout is", "take an io.Writer, or log with slog"},
		{"log", []string{"Print*", "Fatal*", "Panic*"}, product, nil,
			"log lines are structured", "log a constant message with attributes through the *slog.Logger the room was given"},
		{"os", []string{"Exit"}, []string{"pkg/"}, nil,
			"a room that ends the process skips everybody's Stop", "return the error"},
		{"os", []string{"Getenv", "LookupEnv"}, []string{"pkg/"}, []string{"pkg/config", "pkg/telemetry", "pkg/memory", "pkg/app"},
			"a setting is declared once", "declare a field on the room's Config; its environment variable follows"},
		{"flag", []string{"Bool*", "Int*", "Uint*", "Float*", "String*", "Duration*", "Text*", "Func*", "Var", "Parse"}, product,
			[]string{"pkg/config"},
			"a setting is declared once", "declare a field on the room's Config"},
		{"context", []string{"TODO"}, product, nil,
			"work nobody can cancel holds up a shutdown", "take a ctx from the caller"},
	}
}

func checkCalls(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		for _, h := range homelessCalls() {
			if !within(f.Path, h.under) || within(f.Path, h.homes) {
				continue
			}
			for sel := range selectors(f, h.pkg) {
				if !h.has(sel.Sel.Name) {
					continue
				}
				call := importName(f, h.pkg) + "." + sel.Sel.Name
				found = append(found, Finding{Key: f.Path + ":" + call, Line: t.line(sel), What: call + " here: " + h.why, Remedy: h.remedy})
			}
		}
	}
	return found
}

func (h homeless) has(name string) bool {
	return slices.ContainsFunc(h.names, func(n string) bool {
		prefix, open := strings.CutSuffix(n, "*")
		return name == n || open && strings.HasPrefix(name, prefix)
	})
}

func within(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		return strings.HasPrefix(path, strings.TrimSuffix(d, "/")+"/")
	})
}

func checkPanics(t *Tree) []Finding {
	var found []Finding
	for f := range t.production {
		if !within(f.Path, []string{"pkg/", "cmd/"}) {
			continue
		}
		for fn := range funcs(f) {
			if recovers(fn) { // it may pass on what it does not handle
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if barePanic(n) {
					found = append(found, Finding{Key: f.Path + ":" + symbol(fn), Line: t.line(n), What: "a panic that does not say BUG",
						Remedy: "return an error if the input can cause it, else panic(\"BUG: ...\")"})
				}
				return true
			})
		}
	}
	return found
}

func barePanic(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return false
	}
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == "panic" && !saysBug(call.Args[0])
}

func recovers(fn *ast.FuncDecl) bool {
	found := false
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok {
			id, ok := call.Fun.(*ast.Ident)
			found = found || ok && id.Name == "recover"
		}
		return !found
	})
	return found
}

// saysBug accepts "BUG: ...", "BUG: "+x and fmt.Sprintf("BUG: ..."). http.ErrAbortHandler is how
// net/http is asked to cut a connection, and no bug.
func saysBug(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return err == nil && strings.HasPrefix(text, "BUG: ")
	case *ast.BinaryExpr:
		return saysBug(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name == "ErrAbortHandler"
	case *ast.CallExpr:
		return len(e.Args) > 0 && saysBug(e.Args[0])
	}
	return false
}

// checkSleeps wants every time.Sleep of a test inside a synctest bubble (in a function that opens
// one, or in a helper of a file that does) or in a loop that polls and looks at the clock.
func checkSleeps(t *Tree) []Finding {
	var found []Finding
	for f := range t.handwritten {
		if !f.Test {
			continue
		}
		bubbles := bubbleOpeners(f)
		for sel := range selectors(f, "time") {
			if sel.Sel.Name != "Sleep" {
				continue
			}
			fn := enclosing(f, sel)
			entry := fn == nil || isTestEntry(fn.Name.Name)
			if entry && bubbles[fn] || !entry && len(bubbles) > 0 || fn != nil && polls(f, fn, sel) {
				continue
			}
			name := "package level"
			if fn != nil {
				name = symbol(fn)
			}
			found = append(found, Finding{Key: f.Path + ":" + name, Line: t.line(sel), What: "time.Sleep on the real clock",
				Remedy: "run it in testing/synctest, or poll with a deadline for what the test waits for"})
		}
	}
	return found
}

// polls says whether sleep stands in a loop of fn that ends by a deadline.
func polls(f *File, fn *ast.FuncDecl, sleep ast.Node) bool {
	looped := false
	ast.Inspect(fn, func(n ast.Node) bool {
		loop, ok := n.(*ast.ForStmt)
		if ok && loop.Pos() <= sleep.Pos() && sleep.End() <= loop.End() {
			for sel := range selectors(f, "time") {
				clock := slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name)
				looped = looped || clock && loop.Pos() <= sel.Pos() && sel.End() <= loop.End()
			}
		}
		return !looped
	})
	return looped
}

func isTestEntry(name string) bool {
	for _, p := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func bubbleOpeners(f *File) map[*ast.FuncDecl]bool {
	open := map[*ast.FuncDecl]bool{}
	for sel := range selectors(f, "testing/synctest") {
		if fn := enclosing(f, sel); fn != nil && (sel.Sel.Name == "Test" || sel.Sel.Name == "Run") {
			open[fn] = true
		}
	}
	return open
}

func enclosing(f *File, n ast.Node) *ast.FuncDecl {
	for fn := range funcs(f) {
		if fn.Pos() <= n.Pos() && n.End() <= fn.End() {
			return fn
		}
	}
	return nil
}

// checkPackageVars finds package variables that a function assigns to, appends to or counts up.
// What is reached through a pointer, a mutex or an atomic is not seen; review sees that.
func checkPackageVars(t *Tree) []Finding {
	vars := packageVars(t)
	var found []Finding
	for f := range t.production {
		top := f.AST.Scope
		for fn := range funcs(f) {
			ast.Inspect(fn, func(n ast.Node) bool {
				for _, target := range assigned(n) {
					id := root(target)
					if id == nil || id.Name == "_" || !vars[f.Pkg][id.Name] || id.Obj != nil && top.Lookup(id.Name) != id.Obj {
						continue
					}
					found = append(found, Finding{Key: f.Path + ":" + id.Name, Line: t.line(id), What: "package variable " + id.Name + " is changed by " + symbol(fn),
						Remedy: "make it a field of what the room's New returns"})
				}
				return true
			})
		}
	}
	return found
}

// packageVars are the names of the variables that each package declares.
func packageVars(t *Tree) map[*Package]map[string]bool {
	vars := map[*Package]map[string]bool{}
	for f := range t.production {
		for _, d := range f.AST.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			if vars[f.Pkg] == nil {
				vars[f.Pkg] = map[string]bool{}
			}
			for _, s := range g.Specs {
				for _, name := range s.(*ast.ValueSpec).Names {
					vars[f.Pkg][name.Name] = true
				}
			}
		}
	}
	return vars
}

func assigned(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	}
	return nil
}

// root returns the variable that e is a part of.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
