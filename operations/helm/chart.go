// Package helm owns the Helm chart as files in a program: the operator installs it.
package helm

import "embed"

// Chart is the directory amphora.
//
//go:embed all:amphora
var Chart embed.FS
