// Package harness runs the product as users run it: the built binary, as processes on loopback,
// beside a real S3 server and a real Prometheus. Integration tests and development/cluster share
// it. Every process keeps its data and log in a directory of its own, and can be stopped, killed,
// frozen and started again.
package harness
