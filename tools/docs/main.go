// Command docs generates docs/reference from the code: the tables of limits, routes, error kinds and
// settings, and the metrics and error ids in the source. With -check it writes nothing and fails if a
// page is out of date.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/amphora-metrics/amphora/tools/house"
)

// page is one file of docs/reference and what prints it.
type page struct {
	file  string
	write func(io.Writer, *house.Tree) error
}

func pages() []page {
	return []page{
		{"config.md", writeConfig},
		{"http.md", writeHTTP},
		{"limits.md", writeLimits},
		{"errors.md", writeErrors},
		{"metrics.md", writeMetrics},
	}
}

func main() {
	check := flag.Bool("check", false, "write nothing; fail if a page is out of date")
	dir := flag.String("dir", "docs/reference", "where the pages lie")
	flag.Parse()
	if err := run(*dir, *check); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	tree, err := house.Load(".")
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range pages() {
		var b bytes.Buffer
		if err := p.write(&b, tree); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", p.file, err))
			continue
		}
		problems = append(problems, settle(filepath.Join(dir, p.file), b.Bytes(), check))
	}
	return errors.Join(problems...)
}

// settle writes text to path, or with check compares.
func settle(path string, text []byte, check bool) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the page: %w", err)
	}
	switch {
	case bytes.Equal(old, text):
		return nil
	case check:
		return fmt.Errorf("%s is not what the code declares; run make docs", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
