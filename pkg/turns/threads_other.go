//go:build !linux

package turns

// letThreads leaves it to the kernel which threads run.
func letThreads() {}
