package engine

import (
	"maps"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// growth is by what factor labels may be longer than stored ones; labels that are not in it are 1.
type growth map[string]float64

func (g growth) of(label string) float64 {
	if f, ok := g[label]; ok {
		return f
	}
	return 1
}

func (g growth) most() float64 {
	m := 1.0
	for _, f := range g {
		m = max(m, f)
	}
	return m
}

// labelGrowth returns the growth of the labels of an expression's result. Any series of it may
// come from any of its parts, so the largest of the parts counts.
func labelGrowth(node parser.Node) growth {
	g := growth{}
	for child := range parser.ChildrenIter(node) {
		for label, f := range labelGrowth(child) {
			g[label] = max(g.of(label), f)
		}
	}
	call, ok := node.(*parser.Call)
	if !ok {
		return g
	}
	arg := func(i int) string {
		if i < len(call.Args) {
			if s, ok := bare(call.Args[i]).(*parser.StringLiteral); ok {
				return s.Val
			}
		}
		return ""
	}
	switch call.Func.Name {
	case "label_replace":
		dst, src := arg(1), arg(3)
		out := maps.Clone(g)
		out[dst] = max(g.of(dst), g.of(src)*templateGrowth(arg(2), arg(4)))
		return out
	case "label_join":
		sum := 0.0
		for i := 3; i < len(call.Args); i++ {
			sum += g.of(arg(i))
		}
		out := maps.Clone(g)
		out[arg(1)] = max(g.of(arg(1)), sum)
		return out
	}
	return g
}

// bare returns the expression without what the engine wraps around it.
func bare(e parser.Expr) parser.Expr {
	for {
		switch w := e.(type) {
		case *parser.ParenExpr:
			e = w.Expr
		case *parser.StepInvariantExpr:
			e = w.Expr
		default:
			return e
		}
	}
}

// templateGrowth returns how many times as long as the text that re matches a template's expansion
// may be, apart from its fixed text. A byte of the match is written once for every reference to a
// group around it, so it is the references on the path from the outermost group to an inner one
// that add up; groups beside each other share the text.
func templateGrowth(template, re string) float64 {
	tree, err := syntax.Parse("^(?s:"+re+")$", syntax.Perl)
	if err != nil {
		return 1 // the engine refuses the call
	}
	refs := references(template)
	byGroup := func(n int, name string) float64 {
		f := refs[strconv.Itoa(n)]
		if name != "" {
			f += refs[name]
		}
		return f
	}
	return byGroup(0, "") + heaviestPath(tree, byGroup)
}

func heaviestPath(re *syntax.Regexp, weight func(int, string) float64) float64 {
	most := 0.0
	for _, sub := range re.Sub {
		most = max(most, heaviestPath(sub, weight))
	}
	if re.Op == syntax.OpCapture {
		most += weight(re.Cap, re.Name)
	}
	return most
}

// references counts the references of a template by name: $name, where the name is as long as it can
// be, and ${name}. $$ is a dollar.
func references(template string) map[string]float64 {
	refs := map[string]float64{}
	for {
		_, rest, found := strings.Cut(template, "$")
		if !found {
			return refs
		}
		template = rest
		if inner, ok := strings.CutPrefix(rest, "$"); ok {
			template = inner
			continue
		}
		if inner, ok := strings.CutPrefix(rest, "{"); ok {
			if name, after, closed := strings.Cut(inner, "}"); closed {
				refs[name]++
				template = after
			}
			continue
		}
		n := 0
		for n < len(rest) && wordByte(rest[n]) {
			n++
		}
		refs[rest[:n]]++
		template = rest[n:]
	}
}

// wordByte also accepts bytes of letters beyond ASCII, which no group's name has.
func wordByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b >= 0x80
}
