package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"
)

// ErrNoDisk is in the chain of errors of machines on which disks cannot be made.
var ErrNoDisk = errors.New("disks that lose their power need Linux, root, loop devices and the program mkfs.ext4")

// The request that takes a file system away from the kernel at once, and its argument that says that
// nothing more is to be written, neither data nor journal.
const (
	shutdownRequest = 0x8004587D
	withoutFlushing = 2
)

// Disk is a file system of its own in a file, which can lose its power: what was not on the disk by
// then, by an fsync, is lost.
type Disk struct {
	image, dir string
	cut        bool // since it was mounted
}

// NewDisk makes a disk of so many MiB in the file image and mounts it at dir. Unmount it.
// Errors: ErrNoDisk.
func NewDisk(image, dir string, mib int64) (*Disk, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNoDisk
	}
	if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(image, nil, 0o600), os.Truncate(image, mib<<20)); err != nil {
		return nil, fmt.Errorf("make the file of a disk: %w", err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: mkfs.ext4: %w: %s", ErrNoDisk, err, out)
	}
	d := &Disk{image: image, dir: dir}
	return d, d.Mount()
}

// Mount mounts the disk, and reads again what a cut left of it. That is a copy of the file: a program with
// its own view of the mounts, as each in a network namespace has, may keep the file system that has lost its
// power for a while, and the same file would be given the same one, without power. Errors: ErrNoDisk.
func (d *Disk) Mount() error {
	if d.cut {
		next := d.image + ".next"
		if out, err := exec.Command("cp", "--sparse=always", d.image, next).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w: %s", d.image, err, out)
		}
		if err := os.Rename(next, d.image); err != nil {
			return fmt.Errorf("put the copy of %s into its place: %w", d.image, err)
		}
		d.cut = false
	}
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: mount %s: %w: %s", ErrNoDisk, d.image, err, out)
	}
	return nil
}

// Unmount takes the disk away, once nothing uses it: a program that is being started holds for a moment
// what was open here, and a disk that is mounted again meanwhile would stay without power. After ten
// seconds it goes as soon as nothing uses it.
func (d *Disk) Unmount() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := Poll(ctx, func(context.Context) error { return syscall.Unmount(d.dir, 0) })
	if err != nil {
		err = syscall.Unmount(d.dir, syscall.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	return nil
}

// Cut takes the power away: every later access fails, and nothing more reaches the file.
func (d *Disk) Cut() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("cut the power of %s: %w", d.dir, err)
	}
	defer func() { _ = f.Close() }()
	how := uint32(withoutFlushing)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdownRequest, uintptr(unsafe.Pointer(&how))); e != 0 {
		return fmt.Errorf("%w: cut the power of %s: %w", ErrNoDisk, d.dir, e)
	}
	d.cut = true
	return nil
}
