package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const consoleIdentities = `
accounts:
  - id: "000000000000"
    root_keys: [{id: AKIDCONSOLE1, secret: console-secret-console}]
    users: [{name: left-in-the-file}]
`

// walker returns a command that walks the console in a browser, or an error that says what is missing.
func walker(ctx context.Context) (func(args ...string) *exec.Cmd, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("node is not installed")
	}
	var browser string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if browser, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if browser == "" {
		return nil, errors.New("chromium is not installed")
	}
	dir, err := filepath.Abs("../console")
	if err != nil {
		return nil, err
	}
	for _, module := range []string{"playwright-core", "axe-core"} {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", module)); err != nil {
			return nil, errors.New("console/node_modules is not there, or of an older version: make console-modules")
		}
	}
	return func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, node, append([]string{"test/walk.mjs", "--chromium", browser}, args...)...)
		cmd.Dir = dir
		cmd.WaitDelay = 5 * time.Second
		return cmd
	}, nil
}

// TestTheConsoleIsWalkedInABrowser does the main tasks of the console, from making a workspace to
// deleting it: once with signatures and several tenants, once without authentication.
func TestTheConsoleIsWalkedInABrowser(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 8*time.Minute)
	walk, err := walker(ctx)
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(consoleIdentities), 0o600))
	for name, c := range map[string]struct{ flags, args []string }{
		"signed": {
			[]string{"-auth.enabled", "-auth.identity-file=" + file},
			[]string{"--key", "AKIDCONSOLE1", "--secret", "console-secret-console"},
		},
		"open": {[]string{"-auth.multitenancy-enabled=false"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := everything(ctx, t, append(busyFlags(), c.flags...)...)
			shots := t.TempDir()
			out, err := walk(append([]string{"--url", n.URL(""), "--shots", shots}, c.args...)...).CombinedOutput()
			if err != nil {
				if kept, keepErr := keepShot(filepath.Join(shots, "failed.png")); keepErr == nil {
					t.Logf("what the browser showed: %s", kept)
				}
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// keepShot copies a picture to where it outlives the test.
func keepShot(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "amphora-console-*.png")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("keep %s: %w", path, err)
	}
	return f.Name(), nil
}
