// Package nouns is documented here.
package nouns

var counter int

func count() { counter++ }
