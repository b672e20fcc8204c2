// Command sbom writes the bill of materials of built Go programs as CycloneDX 1.6 JSON, from the
// build information that the Go linker put into them.
package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	out := flag.String("out", "", "directory for <program>.cdx.json; empty: standard output")
	flag.Parse()
	if err := run(flag.Args(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(binaries []string, dir string) error {
	if len(binaries) == 0 {
		return errors.New("which programs?")
	}
	for _, path := range binaries {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		data, err := encode(filepath.Base(path), info)
		if err != nil {
			return err
		}
		if dir == "" {
			if _, err := os.Stdout.Write(data); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)+".cdx.json"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The parts of CycloneDX that are used.
type (
	bom struct {
		Format      string      `json:"bomFormat"`
		SpecVersion string      `json:"specVersion"`
		Serial      string      `json:"serialNumber"`
		Version     int         `json:"version"`
		Metadata    metadata    `json:"metadata"`
		Components  []component `json:"components"`
	}
	metadata struct {
		Component  component  `json:"component"`
		Properties []property `json:"properties,omitempty"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		URL        string     `json:"purl"`
		Properties []property `json:"properties,omitempty"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// encode makes the bill of a program. It is the same for the same program.
func encode(name string, info *debug.BuildInfo) ([]byte, error) {
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Components: []component{library("std", strings.TrimPrefix(info.GoVersion, "go"), "")}}
	b.Metadata.Component = library(info.Main.Path, info.Main.Version, "")
	b.Metadata.Component.Type, b.Metadata.Component.Name = "application", name
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || strings.HasPrefix(s.Key, "vcs") || s.Key == "CGO_ENABLED" {
			b.Metadata.Properties = append(b.Metadata.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Components = append(b.Components, library(m.Path, m.Version, m.Sum))
	}
	slices.SortFunc(b.Components, func(x, y component) int { return cmp.Compare(x.Ref, y.Ref) })
	content, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	b.Serial = fmt.Sprintf("urn:uuid:%x-%x-5%03x-8%03x-%x", sum[:4], sum[4:6], uint16(sum[6])<<4|uint16(sum[7]>>4), uint16(sum[8])<<4|uint16(sum[9]>>4), sum[10:16])
	data, err := json.MarshalIndent(b, "", "  ")
	return append(data, '\n'), err
}

// library is a module; sum is the hash of its files as go.sum has it.
func library(path, version, sum string) component {
	url := "pkg:golang/" + path
	if version != "" {
		url += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	c := component{Type: "library", Ref: url, Name: path, Version: version, URL: url}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
