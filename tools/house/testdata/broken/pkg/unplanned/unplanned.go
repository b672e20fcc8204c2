// Package unplanned has no line.
package unplanned
