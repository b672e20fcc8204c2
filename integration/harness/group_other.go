//go:build unix && !linux

package harness

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from reaching children, so that the parent stops them in
// order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
