// Package strict reads hand-written YAML documents: it keeps the line of every key and value, accepts
// nothing unknown, and reports all problems at once.
package strict

import (
	"fmt"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxProblems bounds a report: a person mends a file in rounds, and a log line has an end.
const maxProblems = 20

// Problems collects what is wrong with a file or a command line. The zero value is ready.
type Problems struct {
	list []string
	more int
}

// Add notes a problem. where is "file:line", "flag -x" or the like.
func (p *Problems) Add(where, format string, args ...any) {
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, where+": "+fmt.Sprintf(format, args...))
}

// Empty says whether nothing was noted.
func (p *Problems) Empty() bool { return len(p.list) == 0 }

// Err returns the report as one error of kind Invalid, or nil if there is no problem. It lists
// the first 20 problems, a line each, and counts the rest.
func (p *Problems) Err() error {
	switch {
	case len(p.list) == 0:
		return nil
	case len(p.list) == 1:
		return errs.New(errs.Invalid, "%s", p.list[0])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems:", len(p.list)+p.more)
	for _, s := range p.list {
		b.WriteString("\n  " + s)
	}
	if p.more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", p.more)
	}
	return errs.New(errs.Invalid, "%s", b.String())
}

// Suggest returns `; did you mean "x"?` for the known name nearest to name, or nothing if none
// is near.
func Suggest(name string, known []string) string {
	if n := Nearest(name, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// maxNearest is the longest name worth comparing: the work grows with the square of the length.
const maxNearest = 100

// Nearest returns the known name with the fewest typing mistakes to name, or "" if every one is
// more than a third of the letters away. Case, dashes and underscores count as alike.
func Nearest(name string, known []string) string {
	if len(name) > maxNearest {
		return ""
	}
	want := flatten(name)
	best, most := "", (len(want)+2)/3+1
	for _, k := range known {
		if len(k) > maxNearest {
			continue
		}
		if d := mistakes(want, flatten(k), most); d < most {
			best, most = k, d
		}
	}
	return best
}

func flatten(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// mistakes counts the letters to add, drop, change or swap with their neighbour that turn a into
// b, or returns most if there are at least as many (optimal string alignment distance).
func mistakes(a, b string, most int) int {
	if d := len(a) - len(b); d >= most || -d >= most {
		return most
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], most)
}
