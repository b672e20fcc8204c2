// Package reader is a service that knows another.
package reader

import "example.com/broken/pkg/writer"

// R holds W.
type R struct{ W writer.W }
