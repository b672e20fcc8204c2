package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoTool is in the chain of errors about programs that `make tools` installs.
var ErrNoTool = errors.New("run make tools to install it")

// Root returns the directory of go.mod, seen from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the repository: no go.mod above the working directory")
		}
		dir = up
	}
}

// Tool returns the path of a program of .tools, or else of PATH. Errors: ErrNoTool.
func Tool(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".tools", name)
	switch _, err := os.Stat(path); {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	if path, err = exec.LookPath(name); err != nil {
		return "", fmt.Errorf("%s is not installed: %w", name, ErrNoTool)
	}
	return path, nil
}

// Build compiles cmd/amphora of this repository into dir and returns the binary's path. race
// builds it with the race detector, which needs cgo; a race is told in the process's log, see
// Process.Races, and ends a process that is stopped with status 66.
func Build(ctx context.Context, dir string, race bool) (string, error) {
	return build(ctx, dir, race)
}

func build(ctx context.Context, dir string, race bool, more ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "amphora")
	args := append([]string{"build", "-ldflags=-w", "-o", binary}, more...) // links twice as fast; nobody debugs it
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/amphora")...)
	cmd.Dir = root
	if race {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/amphora: %w\n%s", err, out)
	}
	return binary, nil
}
