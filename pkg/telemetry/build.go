package telemetry

import (
	"runtime"
	"runtime/debug"
)

// Set by the linker: -X github.com/amphora-metrics/amphora/pkg/telemetry.version=1.2.3 and so on.
// Nothing else writes them.
var (
	version   string
	revision  string
	branch    string
	buildDate string
)

// Build is what a binary was built from. What is not known is "unknown", never empty.
type Build struct {
	Version   string
	Revision  string // of the source
	Branch    string
	Date      string // RFC 3339
	GoVersion string
}

// BuildInfo returns the build of this binary: what the linker was told, else what the Go tool
// recorded.
func BuildInfo() Build {
	b := Build{version, revision, branch, buildDate, runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.fill(info)
	}
	for _, p := range []*string{&b.Version, &b.Revision, &b.Branch, &b.Date} {
		if *p == "" {
			*p = "unknown"
		}
	}
	return b
}

// fill adds what the Go tool recorded where the linker was told nothing.
func (b *Build) fill(info *debug.BuildInfo) {
	recorded := map[string]string{}
	for _, s := range info.Settings {
		recorded[s.Key] = s.Value
	}
	if b.Version == "" && info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	if b.Revision == "" && recorded["vcs.revision"] != "" {
		b.Revision = recorded["vcs.revision"]
		if recorded["vcs.modified"] == "true" {
			b.Revision += "-modified"
		}
	}
	if b.Date == "" {
		b.Date = recorded["vcs.time"]
	}
}

// Version returns the version of this binary.
func Version() string { return BuildInfo().Version }

// String returns the build in one line, for -version.
func (b Build) String() string {
	return "version " + b.Version + ", revision " + b.Revision + " (" + b.Branch + "), built " + b.Date + " with " + b.GoVersion
}
