//go:build !linux

package harness

import "errors"

// ErrOneProcessor is in the chain of errors of machines that cannot be divided.
var ErrOneProcessor = errors.New("to give processes processors of their own needs Linux and at least two")

// Apart is for Linux only.
func Apart(func()) (join func(), err error) { return nil, ErrOneProcessor }
