// Package nouns is documented here too.
package nouns
