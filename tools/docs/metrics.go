package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/tools/house"
)

// metric is one metric family as its constructor declares it.
type metric struct {
	name, kind, help string
	labels           []string
	room             string
}

// metrics finds the constructors of client_golang in the source and reads the names, help texts
// and labels that they are given. It follows constants and small functions that pass a name on,
// local or of another room; a name that it cannot follow is an error, so that none goes missing.
func metrics(tree *house.Tree) ([]metric, error) {
	r := &reader{helpers: map[string]*helper{}, consts: map[string]ast.Expr{}}
	files := product(tree)
	for _, f := range files {
		r.collect(f)
	}
	for _, f := range files {
		for _, d := range f.AST.Decls {
			r.file = f
			r.walk(d, scope{})
		}
	}
	for _, h := range r.helpers {
		if h.fails && h.calls == 0 {
			r.problems = append(r.problems, fmt.Errorf("%s: a metric's name cannot be read from the source; write it as a constant", h.where))
		}
	}
	slices.SortFunc(r.found, func(a, b metric) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.room, b.room)) })
	same := func(a, b metric) bool { return a.name == b.name && a.room == b.room }
	return slices.CompactFunc(r.found, same), errors.Join(r.problems...)
}

// scope binds the parameters of the helpers around an expression to what they were called with.
type scope map[string]value

// value is what an expression is known to be.
type value struct {
	text   string
	known  bool
	labels []string
	opts   *metric
}

// helper is a function that makes a metric from its parameters.
type helper struct {
	fn    *ast.FuncType
	body  *ast.BlockStmt
	where string
	busy  bool // being read; a helper that calls itself is not followed
	fails bool // needs its parameters
	calls int
}

type reader struct {
	helpers  map[string]*helper  // by "room.Func", and by "path/function.name" for those of a function
	consts   map[string]ast.Expr // by "room.Name"
	file     *house.File
	within   *helper
	found    []metric
	problems []error
}

// collect remembers the constants and functions of a file.
func (r *reader) collect(f *house.File) {
	pkg := f.AST.Name.Name
	for _, d := range f.AST.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Body != nil && d.Type.Params.NumFields() > 0 {
				r.helpers[pkg+"."+d.Name.Name] = &helper{fn: d.Type, body: d.Body, where: f.Path + ": " + d.Name.Name}
			}
		case *ast.GenDecl:
			if d.Tok != token.CONST {
				continue
			}
			for _, s := range d.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i < len(v.Values) {
						r.consts[pkg+"."+name.Name] = v.Values[i]
					}
				}
			}
		}
	}
}

// walk reads a declaration or the body of a helper. A local function is read where it is called.
func (r *reader) walk(n ast.Node, outer scope) {
	local := map[string]*helper{}
	s := scope{}
	maps.Copy(s, outer)
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if h := r.helpers[r.pkg()+"."+n.Name.Name]; h != nil && n.Recv == nil {
				around := r.within
				r.within = h
				r.walk(h.body, scope{})
				r.within = around
				return false
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if i < len(n.Values) {
					s[name.Name] = r.eval(n.Values[i], s)
				}
			}
		case *ast.AssignStmt:
			if name, lit := localFunc(n); lit != nil {
				local[name] = &helper{fn: lit.Type, body: lit.Body, where: r.file.Path + ": " + name}
				return false
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && local[id.Name] != nil {
				r.call(local[id.Name], n, s)
			} else if h := r.helpers[r.pkg()+"."+dotted(n.Fun)]; h != nil {
				r.call(h, n, s)
			} else if kind, vec, ok := constructor(n); ok {
				r.construct(n, kind, vec, s)
			}
		}
		return true
	})
}

func (r *reader) pkg() string { return r.file.AST.Name.Name }

func localFunc(a *ast.AssignStmt) (string, *ast.FuncLit) {
	if len(a.Lhs) != 1 || len(a.Rhs) != 1 {
		return "", nil
	}
	id, ok := a.Lhs[0].(*ast.Ident)
	lit, isFunc := a.Rhs[0].(*ast.FuncLit)
	if !ok || !isFunc {
		return "", nil
	}
	return id.Name, lit
}

// call reads a helper's body with its parameters bound to the call's arguments.
func (r *reader) call(h *helper, call *ast.CallExpr, s scope) {
	if h.busy {
		return
	}
	h.busy = true
	defer func() { h.busy = false }()
	before := len(r.found)
	r.walk(h.body, r.bind(h, call, s))
	if len(r.found) > before {
		h.calls++
	}
}

func (r *reader) bind(h *helper, call *ast.CallExpr, s scope) scope {
	inner := scope{}
	i := 0
	for _, p := range h.fn.Params.List {
		_, variadic := p.Type.(*ast.Ellipsis)
		for _, name := range p.Names {
			if i >= len(call.Args) {
				break
			}
			if v := (value{}); variadic && !call.Ellipsis.IsValid() {
				for _, a := range call.Args[i:] {
					v.labels = append(v.labels, r.eval(a, s).text)
				}
				inner[name.Name] = v
			} else {
				inner[name.Name] = r.eval(call.Args[i], s)
			}
			i++
		}
	}
	return inner
}

// constructor recognises prometheus.NewXVec, promauto's and a factory's methods of that name.
func constructor(call *ast.CallExpr) (kind string, vec, ok bool) {
	sel, isSel := call.Fun.(*ast.SelectorExpr)
	if !isSel || len(call.Args) == 0 {
		return "", false, false
	}
	name, vec := strings.CutSuffix(strings.TrimSuffix(sel.Sel.Name, "Func"), "Vec")
	switch name {
	case "NewCounter", "NewGauge", "NewHistogram", "NewSummary":
		return strings.ToLower(strings.TrimPrefix(name, "New")), vec, true
	case "NewDesc":
		return "", true, len(call.Args) == 4
	}
	return "", false, false
}

func (r *reader) construct(call *ast.CallExpr, kind string, vec bool, s scope) {
	m := metric{kind: kind, room: r.file.Pkg.Room()}
	if kind == "" { // NewDesc(name, help, labels, constant labels)
		name := r.eval(call.Args[0], s)
		if !name.known {
			r.fail(call)
			return
		}
		m.name, m.help, m.labels = name.text, r.eval(call.Args[1], s).text, r.eval(call.Args[2], s).labels
		m.kind = "gauge" // a description does not say; the name does
		if strings.HasSuffix(m.name, "_total") {
			m.kind = "counter"
		}
		r.found = append(r.found, m)
		return
	}
	opts := r.eval(call.Args[0], s).opts
	if opts == nil {
		r.fail(call)
		return
	}
	m.name, m.help, m.labels = opts.name, opts.help, opts.labels
	if vec && len(call.Args) > 1 {
		m.labels = slices.Concat(m.labels, r.eval(call.Args[1], s).labels)
	}
	r.found = append(r.found, m)
}

// fail notes that the name of a metric is not known here. In a helper that is well if a caller
// knows it.
func (r *reader) fail(call *ast.CallExpr) {
	if r.within != nil {
		r.within.fails = true
		return
	}
	r.problems = append(r.problems, fmt.Errorf("%s: the name given to %s cannot be read from the source; write it as a constant", r.file.Path, dotted(call.Fun)))
}

// eval follows literals, constants, sums, parameters and functions that only return.
func (r *reader) eval(e ast.Expr, s scope) value {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, ok := literal(e)
		return value{text: text, known: ok}
	case *ast.ParenExpr:
		return r.eval(e.X, s)
	case *ast.BinaryExpr:
		a, b := r.eval(e.X, s), r.eval(e.Y, s)
		return value{text: a.text + b.text, known: e.Op == token.ADD && a.known && b.known}
	case *ast.Ident:
		if v, ok := s[e.Name]; ok {
			return v
		}
		if c := r.consts[r.pkg()+"."+e.Name]; c != nil {
			return r.eval(c, nil)
		}
	case *ast.SelectorExpr:
		if c := r.consts[dotted(e)]; c != nil {
			return r.eval(c, nil)
		}
	case *ast.CallExpr:
		return r.evalCall(e, s)
	case *ast.CompositeLit:
		return r.evalLit(e, s)
	}
	return value{}
}

func (r *reader) evalCall(call *ast.CallExpr, s scope) value {
	name := dotted(call.Fun)
	if !strings.Contains(name, ".") {
		name = r.pkg() + "." + name
	}
	h := r.helpers[name]
	if h == nil || len(h.body.List) == 0 {
		return value{}
	}
	ret, ok := h.body.List[len(h.body.List)-1].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return value{}
	}
	return r.eval(ret.Results[0], r.bind(h, call, s))
}

func (r *reader) evalLit(lit *ast.CompositeLit, s scope) value {
	if list, ok := lit.Type.(*ast.ArrayType); ok && dotted(list.Elt) == "string" {
		v := value{}
		for _, e := range lit.Elts {
			v.labels = append(v.labels, r.eval(e, s).text)
		}
		return v
	}
	if dotted(lit.Type) == "prometheus.Labels" {
		v := value{}
		for _, e := range lit.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				v.labels = append(v.labels, r.eval(kv.Key, s).text)
			}
		}
		return v
	}
	if !strings.HasSuffix(dotted(lit.Type), "Opts") {
		return value{}
	}
	var namespace, subsystem, name value
	m := new(metric)
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch v := r.eval(kv.Value, s); dotted(kv.Key) {
		case "Namespace":
			namespace = v
		case "Subsystem":
			subsystem = v
		case "Name":
			name = v
		case "Help":
			m.help = v.text
		case "ConstLabels":
			m.labels = v.labels
		}
	}
	if !name.known {
		return value{}
	}
	for _, part := range []string{namespace.text, subsystem.text, name.text} {
		if part != "" && m.name != "" {
			m.name += "_"
		}
		m.name += part
	}
	return value{opts: m}
}
