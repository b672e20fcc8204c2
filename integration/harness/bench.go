package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// BenchMain is the main function of a command that measures: run gets its arguments and where to print,
// and a context that SIGINT and SIGTERM end.
func BenchMain(name string, run func(ctx context.Context, args []string, out io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// BenchDir empties dir for the processes that are measured, and builds the product there if binary is
// empty. It returns the absolute paths of both, which processes with directories of their own need. The
// caller removes the directory.
func BenchDir(ctx context.Context, dir, binary string) (absDir, absBinary string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", fmt.Errorf("directory: %w", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return "", "", fmt.Errorf("empty the directory: %w", err)
	}
	if binary == "" {
		// A directory of its own: servers have directories by their names in dir, and one is amphora.
		bin := filepath.Join(dir, "bin")
		if err := os.Mkdir(bin, 0o700); err != nil {
			return "", "", fmt.Errorf("make the directory of the binary: %w", err)
		}
		if binary, err = Build(ctx, bin, false); err != nil {
			return "", "", err
		}
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return "", "", fmt.Errorf("binary: %w", err)
	}
	return dir, binary, nil
}
