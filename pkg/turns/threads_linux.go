package turns

import "syscall"

// letThreads lets another thread of the machine have this processor, if one waits for it. The kernel switches between threads
// when it has its tick, every 4 ms or so, and leaves two of them to one processor meanwhile even if another one is idle.
// If none waits it takes less than a microsecond.
func letThreads() { _, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
