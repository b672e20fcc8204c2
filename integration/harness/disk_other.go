//go:build !linux

package harness

import "errors"

// ErrNoDisk is in the chain of errors of machines on which disks cannot be made.
var ErrNoDisk = errors.New("disks that lose their power need Linux")

// Disk is a file system that can lose its power; here none can be made.
type Disk struct{}

// NewDisk fails. Errors: ErrNoDisk.
func NewDisk(string, string, int64) (*Disk, error) { return nil, ErrNoDisk }

// Mount fails. Errors: ErrNoDisk.
func (*Disk) Mount() error { return ErrNoDisk }

// Unmount fails. Errors: ErrNoDisk.
func (*Disk) Unmount() error { return ErrNoDisk }

// Cut fails. Errors: ErrNoDisk.
func (*Disk) Cut() error { return ErrNoDisk }
