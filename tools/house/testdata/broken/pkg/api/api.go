// Package api knows a service.
package api

import "example.com/broken/pkg/writer"

// A holds W.
type A struct{ W writer.W }
