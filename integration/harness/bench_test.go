package harness_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// Servers that are measured have directories by their names, and one is named as the binary is.
func TestTheBinaryOfABenchIsNotInTheWayOfItsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the product; not in -short")
	}
	dir, binary, err := harness.BenchDir(t.Context(), filepath.Join(t.TempDir(), "bench"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "amphora"), 0o700); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(binary); err != nil || !info.Mode().IsRegular() {
		t.Fatalf("the binary %s: %v, %v", binary, info, err)
	}
}
