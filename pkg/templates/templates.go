// Package templates owns the functions available to tenants' templates and their bounds: the
// templates of notifications and of alert labels and annotations run in processes that all tenants
// share, and a running template cannot be interrupted.
package templates

import (
	"math"
	"text/template/parse"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// maxBytes is how long a text may become by what is known of it before it runs.
	maxBytes = 64 << 20
	// items is how many a range is taken to have, actionBytes how long what an action prints, and
	// unknownBytes how long a template that is not the tenant's.
	items        = 100
	actionBytes  = 256
	unknownBytes = 32 << 10
)

// variables are declared for texts that come with them: those of rules.
const variables = "{{$labels := 0}}{{$externalLabels := 0}}{{$externalURL := 0}}{{$value := 0}}"

// Check refuses texts that call templates in a circle, or that grow beyond any use by templates and
// ranges in each other. shared are files whose templates all of texts may call; they are checked, too.
// What does not parse is not judged here. Errors: Invalid.
func Check(shared, texts []string) error {
	files := map[string]*parse.Tree{}
	for _, text := range shared {
		for name, tree := range parsed(text) {
			if name != "" {
				files[name] = tree
			}
		}
	}
	common := &judge{trees: files, cost: map[string]int64{}}
	for name := range files {
		if err := common.check(name); err != nil {
			return err
		}
	}
	for _, text := range texts {
		own := parsed(text)
		for name, tree := range files {
			if own[name] == nil {
				own[name] = tree
			}
		}
		if err := (&judge{trees: own, cost: map[string]int64{}}).check(""); err != nil {
			return err
		}
	}
	return nil
}

// parsed returns the templates of text, itself as the one without a name; none if it does not parse.
func parsed(text string) map[string]*parse.Tree {
	out := map[string]*parse.Tree{}
	t := parse.New("")
	t.Mode = parse.SkipFuncCheck
	if _, err := t.Parse(variables+text, "", "", out); err != nil {
		return map[string]*parse.Tree{}
	}
	return out
}

// judge estimates how long templates become.
type judge struct {
	trees map[string]*parse.Tree
	cost  map[string]int64 // -1: it is being looked at
}

// circle names a template that calls itself, the one thing that ends an estimate.
type circle string

func (j *judge) check(name string) error {
	n, at := j.of(name)
	if at != "" {
		return errs.New(errs.Invalid, "template %q calls itself, by others or at once: it would never end", at)
	}
	if n > maxBytes {
		what := "the text"
		if name != "" {
			what = "template " + name
		}
		return errs.New(errs.Invalid, "%s may become longer than %d bytes: it has too many templates or ranges in each other", what, maxBytes)
	}
	return nil
}

// of returns the length of a template, or the name of one that calls itself.
func (j *judge) of(name string) (int64, circle) {
	tree := j.trees[name]
	if tree == nil || tree.Root == nil {
		return unknownBytes, ""
	}
	switch n, seen := j.cost[name]; {
	case seen && n < 0:
		return 0, circle(name)
	case seen:
		return n, ""
	}
	j.cost[name] = -1
	n, at := j.list(tree.Root)
	j.cost[name] = n
	return n, at
}

func (j *judge) list(l *parse.ListNode) (sum int64, at circle) {
	if l == nil {
		return 0, ""
	}
	for _, node := range l.Nodes {
		n, at := j.node(node)
		if at != "" {
			return 0, at
		}
		sum = min(sum+n, math.MaxInt32*items)
	}
	return sum, ""
}

func (j *judge) node(node parse.Node) (int64, circle) {
	switch n := node.(type) {
	case *parse.TextNode:
		return int64(len(n.Text)), ""
	case *parse.ActionNode:
		return actionBytes, ""
	case *parse.TemplateNode:
		return j.of(n.Name)
	case *parse.IfNode:
		return j.both(1, &n.BranchNode)
	case *parse.WithNode:
		return j.both(1, &n.BranchNode)
	case *parse.RangeNode:
		return j.both(items, &n.BranchNode)
	}
	return 0, ""
}

// both is times the one branch, and the other.
func (j *judge) both(times int64, b *parse.BranchNode) (int64, circle) {
	n, at := j.list(b.List)
	if at != "" {
		return 0, at
	}
	other, at := j.list(b.ElseList)
	return min(n*times+other, math.MaxInt32*items), at
}
