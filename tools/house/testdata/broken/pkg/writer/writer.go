// Package writer is a service.
package writer

// W is a service.
type W struct{}
