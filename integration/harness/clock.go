package harness

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// clockVariable names the file that has the error of a process's clock.
const clockVariable = "AMPHORA_TEST_CLOCK"

// wrongClock is added to package time of a program whose clock can be set. The file has the nanoseconds that
// its clock is ahead, in the byte order of the machine, and is read with every reading of the clock, so that
// the clock can jump while the program runs. What measures how long something takes is not changed, just as
// on a machine whose clock is set.
const wrongClock = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wrongBy = func() *int64 {
	path, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("open the file of the clock: " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map the file of the clock: " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}()

func wrongNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	if wrongBy != nil {
		at := sec*1e9 + int64(nsec) + atomic.LoadInt64(wrongBy)
		sec, nsec = at/1e9, int32(at%1e9)
	}
	return sec, nsec, mono
}
`

// BuildWithClock builds the product as Build does, with a package time that has the clock of a Clock. It
// builds everything that imports time, which takes minutes the first time.
func BuildWithClock(ctx context.Context, dir string) (string, error) {
	root, err := goRoot(ctx)
	if err != nil {
		return "", err
	}
	real := filepath.Join(root, "src", "time", "time.go")
	text, err := os.ReadFile(real)
	if err != nil {
		return "", fmt.Errorf("read package time: %w", err)
	}
	const was, is = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()", "func Now() Time {\n\tsec, nsec, mono := wrongNow()"
	if strings.Count(string(text), was) != 1 {
		return "", fmt.Errorf("%s: time.Now does not begin as it is known to", real)
	}
	changed, added, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "wrong.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {real: changed, filepath.Join(root, "src", "time", "wrong.go"): added}})
	if err != nil {
		return "", fmt.Errorf("encode the overlay: %w", err)
	}
	for path, text := range map[string]string{changed: strings.Replace(string(text), was, is, 1), added: wrongClock, overlay: string(list)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write the overlay: %w", err)
		}
	}
	return build(ctx, dir, false, "-overlay="+overlay)
}

func goRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask for the root of Go: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Clock is the clock of processes that were built by BuildWithClock.
type Clock struct{ path string }

// NewClock makes a clock that is right, kept in a file at path.
func NewClock(path string) (*Clock, error) {
	c := &Clock{path: path}
	return c, c.Set(0)
}

// Set makes the clock go ahead of the right time, or behind if d is negative, from now on.
func (c *Clock) Set(d time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the file of a clock: %w", err)
	}
	// One write of eight bytes in one page: no reader sees half of it.
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(d.Nanoseconds())), 0)
	if end := f.Close(); err == nil {
		err = end
	}
	if err != nil {
		return fmt.Errorf("set a clock: %w", err)
	}
	return nil
}

// Env is the environment of processes that have this clock.
func (c *Clock) Env() []string { return []string{clockVariable + "=" + c.path} }
