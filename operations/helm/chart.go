// Package helm owns the Helm chart, embedded as files for the operator to install.
package helm

import "embed"

// Chart is the directory amphora.
//
//go:embed all:amphora
var Chart embed.FS
