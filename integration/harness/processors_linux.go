package harness

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// ErrOneProcessor is in the chain of errors of machines that cannot be divided.
var ErrOneProcessor = errors.New("to give processes processors of their own needs Linux and at least two")

// processors is a set of processors.
type processors [1024 / bits.UintSize]uint

func (p *processors) of(thread int, trap uintptr) error {
	_, _, errno := syscall.RawSyscall(trap, uintptr(thread), unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)))
	if errno != 0 {
		return fmt.Errorf("processors of thread %d: %w", thread, errno)
	}
	return nil
}

// Apart calls start, and has the processes it starts run on all processors but the last, and this
// process on that one, as if they were two machines, until the function is called that it returns.
func Apart(start func()) (join func(), err error) {
	runtime.LockOSThread() // children inherit the processors of the thread that starts them
	defer runtime.UnlockOSThread()
	var all, theirs, ours processors
	if err := all.of(0, syscall.SYS_SCHED_GETAFFINITY); err != nil {
		return nil, err
	}
	last := -1
	for i := range all {
		if all[i] != 0 {
			last = i
		}
	}
	theirs = all
	ours[last] = 1 << (bits.Len(all[last]) - 1)
	theirs[last] &^= ours[last]
	if theirs == (processors{}) {
		return nil, ErrOneProcessor
	}
	if err := theirs.of(0, syscall.SYS_SCHED_SETAFFINITY); err != nil {
		return nil, err
	}
	defer func() { _ = ours.everywhere() }() // also if start ends the test
	start()
	before := runtime.GOMAXPROCS(1)
	return func() {
		_ = all.everywhere()
		runtime.GOMAXPROCS(before)
	}, nil
}

// everywhere has all threads of this process run on p only.
func (p *processors) everywhere() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("thread %q: %w", t.Name(), err)
		}
		if err := p.of(id, syscall.SYS_SCHED_SETAFFINITY); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
