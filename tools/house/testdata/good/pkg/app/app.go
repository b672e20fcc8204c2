// Package app wires.
package app

import (
	_ "example.com/good/pkg/api"
	"example.com/good/pkg/writer"
)

// Run runs.
func Run() writer.W { return writer.W{} }
