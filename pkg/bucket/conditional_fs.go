package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/thanos-io/objstore"
)

// locksDir holds the files that writers lock. They stay, because a lock on a file that another
// writer removes would lock nothing.
const locksDir = "__amphora_cluster/locks"

// lockFiles spreads the locks of unrelated objects.
const lockFiles = 64

// fsConditional swaps files under an advisory lock that holds between all processes of a machine,
// or of a shared mount. The version of an object is the hash of its bytes: that a file went away
// and came back with the same bytes makes no difference to who replaces it.
type fsConditional struct{ *fsBucket }

// NewConditionalFilesystem opens the directory dir, which it makes, for compare-and-swap. The
// caller closes it.
func NewConditionalFilesystem(dir string) (Conditional, error) {
	b, err := NewFilesystem(dir)
	if err != nil {
		return nil, err
	}
	return &fsConditional{b.(*fsBucket)}, nil
}

// lock waits for the lock of name and returns what gives it back. Another holder writes one small
// file, so the wait is short; it does not end with a context.
func (b *fsConditional) lock(name string) (unlock func() error, err error) {
	if err := b.root.MkdirAll(locksDir, 0o750); err != nil {
		return nil, err
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, name) // a hash never fails
	f, err := b.root.OpenFile(path.Join(locksDir, fmt.Sprint(h.Sum32()%lockFiles)), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f.Close, nil
}

func (b *fsConditional) Read(ctx context.Context, name string) (Object, error) {
	r, err := b.Get(ctx, name)
	if b.IsObjNotFoundErr(err) {
		return Object{}, ErrAbsent
	}
	if err != nil {
		return Object{}, err
	}
	data, err := readSmall(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return Object{}, fmt.Errorf("read object %s: %w", name, err)
	}
	attrs, err := b.Attributes(ctx, name)
	if err != nil && !b.IsObjNotFoundErr(err) {
		return Object{}, err
	}
	return Object{Name: name, Data: data, Size: int64(len(data)), Version: hashOf(data), Modified: attrs.LastModified}, nil
}

// readSmall reads all of r, up to the bound of one object.
func readSmall(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConditionalBytes+1))
	if err == nil && len(data) > maxConditionalBytes {
		err = fmt.Errorf("object is larger than %d bytes", maxConditionalBytes)
	}
	return data, err
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// holding calls do with the lock of name held and the object's version as expected.
func (b *fsConditional) holding(ctx context.Context, name, expect string, do func() error) (err error) {
	unlock, err := b.lock(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	now, err := b.Read(ctx, name)
	if err != nil && !errors.Is(err, ErrAbsent) {
		return err
	}
	if now.Version != expect {
		return ErrChanged
	}
	return do()
}

func (b *fsConditional) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	if len(data) == 0 {
		return "", fmt.Errorf("object %s would be empty", name)
	}
	err := b.holding(ctx, name, expect, func() error { return b.Upload(ctx, name, bytes.NewReader(data)) })
	if err != nil {
		return "", err
	}
	return hashOf(data), nil
}

func (b *fsConditional) Remove(ctx context.Context, name, expect string) error {
	if expect == "" {
		return ErrChanged
	}
	return b.holding(ctx, name, expect, func() error { return b.Delete(ctx, name) })
}

func (b *fsConditional) List(ctx context.Context, prefix string) ([]Object, error) {
	dir := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i]
	}
	var out []Object
	err := b.Iter(ctx, dir, func(name string) error {
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, locksDir) {
			return nil
		}
		o, err := b.Read(ctx, name)
		if errors.Is(err, ErrAbsent) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		o.Data = nil
		out = append(out, o)
		return err
	}, objstore.WithRecursiveIter())
	return out, err
}
