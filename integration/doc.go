// Package integration tests the built binary as users run it: one process and clusters, real
// clients, and the faults it must survive. The processes come from package harness.
package integration
