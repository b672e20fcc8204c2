// Command mixin generates the dashboards, alerts, recording rules and runbooks from the tables in its
// code; -check reports whether the checked-in files are up to date.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	check := flag.Bool("check", false, "only say whether the files are up to date")
	root := flag.String("root", ".", "directory of the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "mixin:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	files, err := compile()
	if err != nil {
		return err
	}
	var stale []string
	for _, f := range files {
		path := filepath.Join(root, filepath.FromSlash(f.name))
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, f.data) {
			continue
		}
		stale = append(stale, f.name)
		if check {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return err
		}
	}
	if check && len(stale) > 0 {
		slices.Sort(stale)
		return fmt.Errorf("out of date, run go run ./tools/mixin: %q", stale)
	}
	return nil
}

// file is one file that is written, its name relative to the repository.
type file struct {
	name string
	data []byte
}

// compile returns every file.
func compile() ([]file, error) {
	var out []file
	for _, d := range dashboards() {
		data, err := d.json()
		if err != nil {
			return nil, err
		}
		out = append(out, file{"operations/mixin/dashboards/amphora-" + d.name + ".json", data})
	}
	alerting, err := alertsYAML()
	if err != nil {
		return nil, err
	}
	recording, err := rulesYAML()
	if err != nil {
		return nil, err
	}
	return append(out,
		file{"operations/mixin/alerts.yaml", alerting},
		file{"operations/mixin/rules.yaml", recording},
		file{"operations/mixin/mixin.libsonnet", libsonnet()},
		file{"docs/runbooks.md", runbooks()}), nil
}

// libsonnet makes the files a mixin that jsonnet can import.
func libsonnet() []byte {
	var b bytes.Buffer
	b.WriteString("// Written by tools/mixin. A mixin of dashboards, alerts and recording rules, to be imported by path.\n{\n  grafanaDashboards+:: {\n")
	for _, d := range dashboards() {
		fmt.Fprintf(&b, "    'amphora-%[1]s.json': import 'dashboards/amphora-%[1]s.json',\n", d.name)
	}
	b.WriteString("  },\n  prometheusAlerts+:: std.parseYaml(importstr 'alerts.yaml'),\n  prometheusRules+:: std.parseYaml(importstr 'rules.yaml'),\n}\n")
	return b.Bytes()
}
