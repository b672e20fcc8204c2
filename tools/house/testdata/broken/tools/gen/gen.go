// Package gen is no room.
package gen

// X is used by a room.
const X = 1
