package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CPU is the processor time that this process has used.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// clockTick is the unit of processor time in /proc on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// CPUOf is the processor time that process pid has used, all its threads together. Linux only.
func CPUOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	// The name, in parentheses, may have spaces; user and system time are the 12th and 13th field
	// after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read processor time of %d: %q", pid, stat)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time of %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
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
