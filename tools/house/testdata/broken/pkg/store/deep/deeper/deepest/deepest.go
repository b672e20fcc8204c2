// Package deepest lies too deep.
package deepest
