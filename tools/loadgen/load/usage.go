package load

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the processor time that this process has used.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// CPUOf is the processor time that process pid has used, all its threads together. Linux only.
func CPUOf(pid int) (time.Duration, error) {
	// The number of the clock is made as clock_getcpuclockid does it: /proc counts in steps of 10 ms, this one in
	// nanoseconds.
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("read processor time of %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// SwitchesOf is how often threads of process pid have gone to sleep by themselves, as far as they live. Linux only.
func SwitchesOf(pid int) (int64, error) {
	const field = "voluntary_ctxt_switches:"
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("read threads of %d: %w", pid, cmp.Or(err, os.ErrNotExist))
	}
	var sum int64
	for _, path := range threads {
		status, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return 0, fmt.Errorf("read threads of %d: %w", pid, err)
		}
		for line := range strings.Lines(string(status)) {
			if text, ok := strings.CutPrefix(line, field); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("read threads of %d: %w", pid, err)
				}
				sum += n
			}
		}
	}
	return sum, nil
}

// AnonOf is the anonymous memory of process pid that is in RAM, in bytes: heap and stacks without
// mapped files. Linux only.
func AnonOf(pid int) (int64, error) {
	w, err := WatchAnon(pid)
	if err != nil {
		return 0, err
	}
	anon, err := w.Anon()
	return anon, errors.Join(err, w.Close())
}

// AnonWatch looks at the anonymous memory of one process again and again, at one system call a look.
type AnonWatch struct {
	file *os.File
	buf  [128]byte
}

// WatchAnon returns a watch of process pid, for one goroutine; Close ends it. Linux only.
func WatchAnon(pid int) (*AnonWatch, error) {
	// The shortest of the texts that tell.
	f, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	return &AnonWatch{file: f}, nil
}

// Anon is the memory as AnonOf says it.
func (w *AnonWatch) Anon() (int64, error) {
	n, err := w.file.ReadAt(w.buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	var pages [3]int64 // size, resident, shared, which are those of files
	fields := bytes.Fields(w.buf[:n])
	if len(fields) < len(pages) {
		return 0, fmt.Errorf("read memory: %q", w.buf[:n])
	}
	for i := range pages {
		if pages[i], err = strconv.ParseInt(string(fields[i]), 10, 64); err != nil {
			return 0, fmt.Errorf("read memory: %w", err)
		}
	}
	return (pages[1] - pages[2]) * int64(os.Getpagesize()), nil
}

// Close ends the watch.
func (w *AnonWatch) Close() error { return w.file.Close() }
