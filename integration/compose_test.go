package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestComposeFilesTellTheBinaryWhatItTakes checks the configuration of every service that a compose file
// starts, without starting it.
func TestComposeFilesTellTheBinaryWhatItTakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the binary; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	path := binary(ctx, t)
	files, err := filepath.Glob("../development/compose/*s.yaml")
	must(t, err)
	files = append(files, "../development/compose/single.yaml")
	if len(files) != 3 {
		t.Fatalf("%q", files)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		must(t, err)
		var project struct {
			Services map[string]struct {
				Image       string
				Command     []string
				Environment map[string]string
			}
		}
		must(t, yaml.Unmarshal(data, &project))
		checked := 0
		for _, service := range slices.Sorted(maps.Keys(project.Services)) {
			s := project.Services[service]
			if !strings.HasPrefix(s.Image, "amphora:") {
				continue
			}
			checked++
			cmd := exec.CommandContext(ctx, path, append(s.Command, "-config.check")...)
			cmd.Dir = t.TempDir()
			for key, value := range s.Environment {
				cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s", key, value))
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v\n%s", filepath.Base(name), service, err, out)
			}
		}
		if checked == 0 {
			t.Errorf("%s starts nothing of ours", name)
		}
	}
}
