package harness

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from reaching children, so that the parent stops them in
// order, and has the kernel end them should the parent be killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
