package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"testing"
)

func TestABillNamesEveryModuleOnce(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: "example.com/x", Version: "v1.0.0"}, Deps: []*debug.Module{
		{Path: "example.com/b", Version: "v2.0.0+incompatible", Sum: "h1:abc="},
		{Path: "example.com/a", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.1.0", Sum: "h1:def="}},
	}, Settings: []debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}, {Key: "-ldflags", Value: "-X secret"}}}
	data, err := encode("x", info)
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range b.Components {
		got = append(got, c.URL)
	}
	if want := []string{"pkg:golang/example.com/b@v2.0.0%2Bincompatible", "pkg:golang/example.com/fork@v1.1.0", "pkg:golang/std@1.26.0"}; !slices.Equal(got, want) {
		t.Errorf("components %q, want %q", got, want)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.Serial) {
		t.Errorf("serial %s", b.Serial)
	}
	if bytes.Contains(data, []byte("secret")) || b.Metadata.Component.Name != "x" || b.Metadata.Component.Type != "application" {
		t.Errorf("%s", data)
	}
	again, err := encode("x", info)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("the second bill differs: %v", err)
	}
}

func TestABillIsMadeOfThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := run([]string{self}, dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, filepath.Base(self)+".cdx.json"))
	if err != nil || !json.Valid(data) {
		t.Errorf("%v: %.200s", err, data)
	}
	if err := run([]string{filepath.Join(dir, "nothing")}, dir); err == nil {
		t.Error("a file that is not there has a bill")
	}
}
