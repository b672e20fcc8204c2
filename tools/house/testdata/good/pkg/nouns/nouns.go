// Package nouns owns words.
package nouns

import "fmt"

// Word is one word.
type Word string

// String needs no comment that repeats fmt.Stringer, but may have one.
func (w Word) String() string { return string(w) }

// Len and Swap are documented by sort.Interface.
type words []Word

func (w words) Len() int { return len(w) }

// The words we know.
const (
	A = Word("a")
	B = Word("b")
)

// Must returns w and panics on a bug.
func Must(w Word, ok bool) Word {
	if !ok {
		panic(fmt.Sprintf("BUG: unknown word %q", w))
	}
	return w
}
