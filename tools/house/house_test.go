package house

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const repository = "../.."

// TestHouseIsInOrder checks this repository.
func TestHouseIsInOrder(t *testing.T) {
	tree, err := Load(repository)
	if err != nil {
		t.Fatal(err)
	}
	exceptions, err := ReadExceptions("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	left, unused := Excuse(Check(tree), exceptions)
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			for _, f := range left {
				if f.Rule == r.Name {
					t.Error(f)
				}
			}
		})
	}
	for _, e := range unused {
		t.Errorf("exceptions.txt line %d: %s %s is no longer broken\n\tremedy: remove the line; the list only shrinks", e.Line, e.Rule, e.Key)
	}
}

// TestGeneratedDocsAreCurrent fails when a table changed and its reference page did not.
func TestGeneratedDocsAreCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the whole product")
	}
	cmd := exec.Command("go", "run", "./tools/docs", "-check")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\tremedy: make docs, and read what changed", err, out)
	}
}

// small is what the broken house may hold, so that breaking a rule takes few lines.
func small() Sizes {
	return Sizes{File: 40, Func: 6, TestFunc: 8, Params: 2, Fields: 2, Methods: 2}
}

// TestEveryRuleFindsWhatBreaksIt runs the rules over a module in which each is broken, and
// compares with the list of what they must find. A rule that finds nothing guards nothing.
func TestEveryRuleFindsWhatBreaksIt(t *testing.T) {
	tree, err := Load("testdata/broken")
	if err != nil {
		t.Fatal(err)
	}
	tree.Sizes = small()
	var got []string
	broken := map[string]bool{}
	for _, f := range Check(tree) {
		got = append(got, f.Rule+" "+f.Key)
		broken[f.Rule] = true
		if f.What == "" || f.Remedy == "" {
			t.Errorf("%v: says no what or no remedy", f)
		}
	}
	for _, r := range Rules() {
		if !broken[r.Name] {
			t.Errorf("rule %s finds nothing in testdata/broken: break it there", r.Name)
		}
	}
	want := lines(t, "testdata/broken/findings.txt")
	if !slices.Equal(got, want) {
		t.Errorf("findings differ from testdata/broken/findings.txt\n%s", diff(got, want))
	}
}

// TestAGoodHouseHasNoFindings guards against rules that forbid what is allowed.
func TestAGoodHouseHasNoFindings(t *testing.T) {
	tree, err := Load("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	tree.Sizes = small()
	for _, f := range Check(tree) {
		t.Errorf("%s %v", f.Rule, f)
	}
	if len(tree.Files) < 8 {
		t.Errorf("read %d files of testdata/good, want at least 8: was the module found?", len(tree.Files))
	}
}

func TestHouseSizesAreThoseOfTheContract(t *testing.T) {
	want := Sizes{File: 799, Func: 79, TestFunc: 120, Params: 6, Fields: 30, Methods: 5}
	if got := houseSizes(); got != want {
		t.Errorf("sizes %+v, want %+v (CONTRIBUTING.md)", got, want)
	}
}

func TestExceptionsNeedAReasonAndAUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exceptions.txt")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\n\nparams pkg/a/a.go:New: mirrors the library\nparams pkg/b/b.go:Old: gone\n")
	exceptions, err := ReadExceptions(path)
	if err != nil {
		t.Fatal(err)
	}
	found := []Finding{{Rule: "params", Key: "pkg/a/a.go:New"}, {Rule: "calls", Key: "pkg/a/a.go:New"}}
	left, unused := Excuse(found, exceptions)
	if len(left) != 1 || left[0].Rule != "calls" {
		t.Errorf("left %v, want the finding of rule calls", left)
	}
	if len(unused) != 1 || unused[0].Key != "pkg/b/b.go:Old" {
		t.Errorf("unused %v, want pkg/b/b.go:Old", unused)
	}
	for _, bad := range []string{"params pkg/a/a.go:New\n", "params pkg/a/a.go:New: \n", "params: because\n"} {
		write(bad)
		if _, err := ReadExceptions(path); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func diff(got, want []string) string {
	var b strings.Builder
	for _, g := range got {
		if !slices.Contains(want, g) {
			fmt.Fprintf(&b, "found, not listed: %s\n", g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			fmt.Fprintf(&b, "listed, not found: %s\n", w)
		}
	}
	if b.Len() == 0 {
		b.WriteString("same lines, other order or number\n")
	}
	return b.String()
}
