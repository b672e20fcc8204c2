// Package app wires.
package app
