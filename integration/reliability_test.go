package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestTheTableOfFaultsNamesTestsThatExist reads what docs/reliability.md and docs/security.md say is
// tested.
func TestTheTableOfFaultsNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	must(t, err)
	table, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	must(t, err)
	faults := regexp.MustCompile(`(?m)^\| [^|]+ \| [^|]+ \| [^|]{4,} \| [^|]*.Test[^|]+ \|$`).FindAll(table, -1)
	rows := regexp.MustCompile(`(?ms)^\| fault \|.*?\n\n`).Find(table)
	if n := bytes.Count(rows, []byte("\n| ")) - 1; len(faults) != n || n < 40 {
		t.Errorf("of %d faults %d have a result and a test", n, len(faults))
	}
	security, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	must(t, err)
	table = append(table, security...)
	var code bytes.Buffer
	for _, pattern := range []string{"integration/*_test.go", "pkg/*/*_test.go", "pkg/*/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		must(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			must(t, err)
			code.Write(b)
		}
	}
	names := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(table, -1)
	if len(names) < 30 {
		t.Errorf("%d tests named", len(names))
	}
	for _, n := range names {
		if !bytes.Contains(code.Bytes(), append(append([]byte("func "), n[1]...), '(')) {
			t.Errorf("there is no %s", n[1])
		}
	}
}
