// Package house owns the rules of this repository that the compiler does not check: which room may
// import which, size limits, required documentation, and calls that belong to one place. The rules
// run as tests, and a failure says how to fix it. exceptions.txt lists what a rule cannot forbid yet,
// with a reason.
package house

import (
	"cmp"
	"fmt"
	"slices"
)

// Finding is one broken rule.
type Finding struct {
	Rule   string
	Key    string // what exceptions.txt names: a path, or path:Symbol; it holds no line number
	Line   int    // 0 if the finding is about a whole file or package
	What   string
	Remedy string
}

func (f Finding) String() string {
	where := f.Key
	if f.Line > 0 {
		where = fmt.Sprintf("%s (line %d)", f.Key, f.Line)
	}
	return fmt.Sprintf("%s: %s\n\tremedy: %s\n\tor, with a reason, a line in tools/house/exceptions.txt: %s %s: <reason>",
		where, f.What, f.Remedy, f.Rule, f.Key)
}

// Rule is one law of the house.
type Rule struct {
	Name  string
	Law   string
	check func(*Tree) []Finding
}

// Rules returns every rule, in the order in which a newcomer should read them.
func Rules() []Rule {
	return []Rule{
		{"floors", "a room imports only rooms that floors.txt grants it, and those stand above it", checkFloors},
		{"doors", "a heavy library is imported by one room", checkDoors},
		{"package-name", "a package is named after what it owns, at most two directories deep", checkPackageNames},
		{"package-doc", "every package says in one file what it owns", checkPackageDocs},
		{"exported-doc", "every exported identifier is documented", checkExportedDocs},
		{"file-size", "a file is read in one sitting", checkFileSizes},
		{"func-size", "a function is read on one screen", checkFuncSizes},
		{"params", "a call is readable without counting its arguments", checkParams},
		{"struct-fields", "a struct holds one thing", checkStructFields},
		{"interface-methods", "an interface is what one caller needs", checkInterfaceMethods},
		{"calls", "a call with one home stays at home", checkCalls},
		{"panics", "a panic is a bug and says so", checkPanics},
		{"sleep", "no test waits for the real clock", checkSleeps},
		{"package-vars", "no package variable changes after it is declared", checkPackageVars},
		{"links", "a link from one file of the repository to another leads somewhere", checkLinks},
		{"words", "the repository names no machine it was built on", checkWords},
	}
}

// Check returns what breaks the rules in t, sorted by rule and place.
func Check(t *Tree) []Finding {
	var all []Finding
	for _, r := range Rules() {
		found := r.check(t)
		for j := range found {
			found[j].Rule = r.Name
		}
		slices.SortFunc(found, func(a, b Finding) int {
			return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Line, b.Line))
		})
		all = append(all, found...)
	}
	return all
}
