package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/thanos-io/objstore"
)

// uploadsDir holds objects that are still being written. It lies in a directory no tenant can be
// named after, and on the same file system as the objects, so that a rename publishes them.
const uploadsDir = "__amphora_cluster/uploads"

// staleUpload is the age at which a file in uploadsDir is a leftover of a crash: no upload of one
// object takes a day.
const staleUpload = 24 * time.Hour

// fsBucket keeps objects as files below one directory. It differs from the driver of objstore in
// what a crash and a race may leave: an object appears whole and on disk, or not at all; deleting
// one object never takes another that is written at the same time; and no name leads outside the
// directory, whatever symbolic links it holds.
type fsBucket struct {
	dir  string
	root *os.Root
}

// NewFilesystem opens the directory dir, which it makes, as a bucket. The caller closes it.
func NewFilesystem(dir string) (objstore.Bucket, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(abs, 0o750); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	b := &fsBucket{dir: abs, root: root}
	if err := b.dropStaleUploads(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return b, nil
}

func (b *fsBucket) dropStaleUploads() error {
	entries, err := fs.ReadDir(b.root.FS(), uploadsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleUpload {
			if err := b.root.Remove(path.Join(uploadsDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (b *fsBucket) Provider() objstore.ObjProvider { return objstore.FILESYSTEM }
func (b *fsBucket) Name() string                   { return "fs: " + b.dir }
func (b *fsBucket) Close() error                   { return b.root.Close() }

func (b *fsBucket) SupportedIterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

// object checks that name can be one object and returns its path.
func object(name string) (string, error) {
	p := path.Clean(name)
	if name == "" || p != strings.TrimSuffix(name, "/") || !filepath.IsLocal(p) || p == "." {
		return "", fmt.Errorf("object name %q is not a relative path", name)
	}
	return p, nil
}

// Upload writes r as object name. Until it returns nil, readers see the object as it was before.
func (b *fsBucket) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	p, err := object(name)
	if err != nil {
		return err
	}
	tmp := path.Join(uploadsDir, rand.Text())
	if err := b.write(ctx, tmp, r); err != nil {
		return errors.Join(fmt.Errorf("write object %s: %w", name, err), b.removeIfExists(tmp))
	}
	if err := b.publish(tmp, p); err != nil {
		return errors.Join(fmt.Errorf("publish object %s: %w", name, err), b.removeIfExists(tmp))
	}
	return nil
}

func (b *fsBucket) write(ctx context.Context, tmp string, r io.Reader) (err error) {
	if err := b.root.MkdirAll(uploadsDir, 0o750); err != nil {
		return err
	}
	f, err := b.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	body := readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
	if _, err := io.Copy(f, body); err != nil {
		return err
	}
	return f.Sync()
}

// publishTries bounds how often publish meets a deletion that takes the directory it made.
const publishTries = 100

// publish renames tmp to p and makes the name durable.
func (b *fsBucket) publish(tmp, p string) error {
	err := error(fs.ErrNotExist)
	// A directory that goes while MkdirAll looks at what stands in its place is told as one that exists.
	for n := 0; n < publishTries && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)); n++ {
		if err = b.root.MkdirAll(path.Dir(p), 0o750); err == nil {
			err = b.root.Rename(tmp, p)
		}
	}
	if err != nil {
		return err
	}
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		// A directory that is gone went with a deletion of what was just published.
		if err := b.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

func (b *fsBucket) syncDir(dir string) error {
	f, err := b.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (b *fsBucket) removeIfExists(p string) error {
	if err := b.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Delete removes one object, and the directories that are empty without it.
func (b *fsBucket) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	p, err := object(name)
	if err != nil {
		return err
	}
	if info, err := b.root.Stat(p); err != nil {
		return notFound("delete", name, err)
	} else if info.IsDir() {
		return notFound("delete", name, fs.ErrNotExist)
	}
	if err := b.root.Remove(p); err != nil {
		return notFound("delete", name, err)
	}
	dir := path.Dir(p)
	for ; dir != "."; dir = path.Dir(dir) {
		// Remove refuses a directory that holds anything, also what arrived a moment ago.
		if b.root.Remove(dir) != nil {
			break
		}
	}
	// The directory may be gone by now through another deletion, which then made it durable.
	if err := b.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete object %s: %w", name, err)
	}
	return nil
}

// notFound words err; a path through a file, or to a directory, is an absent object.
func notFound(what, name string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%s object %s: %w", what, name, err)
}

func (b *fsBucket) IsObjNotFoundErr(err error) bool  { return errors.Is(err, fs.ErrNotExist) }
func (b *fsBucket) IsAccessDeniedErr(err error) bool { return errors.Is(err, fs.ErrPermission) }

func (b *fsBucket) Exists(ctx context.Context, name string) (bool, error) {
	_, err := b.Attributes(ctx, name)
	if b.IsObjNotFoundErr(err) {
		return false, nil
	}
	return err == nil, err
}

func (b *fsBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := ctx.Err(); err != nil {
		return objstore.ObjectAttributes{}, context.Cause(ctx)
	}
	p, err := object(name)
	if err != nil {
		return objstore.ObjectAttributes{}, err
	}
	info, err := b.root.Stat(p)
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return objstore.ObjectAttributes{}, notFound("stat", name, err)
	}
	return objstore.ObjectAttributes{Size: info.Size(), LastModified: info.ModTime()}, nil
}

func (b *fsBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

func (b *fsBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	p, err := object(name)
	if err != nil {
		return nil, err
	}
	if off < 0 || length < -1 {
		return nil, fmt.Errorf("read object %s: range %d+%d is invalid", name, off, length)
	}
	f, err := b.root.Open(p)
	if err != nil {
		return nil, notFound("read", name, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(notFound("read", name, err), f.Close())
	}
	n := max(info.Size()-off, 0)
	if length >= 0 {
		n = min(n, length)
	}
	return objstore.ObjectSizerReadCloser{
		ReadCloser: section{io.NewSectionReader(f, off, n), f},
		Size:       func() (int64, error) { return n, nil },
	}, nil
}

// section is a part of a file that it closes.
type section struct {
	*io.SectionReader
	io.Closer
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (b *fsBucket) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	recursive := slices.ContainsFunc(options, func(o objstore.IterOption) bool { return o.Type == objstore.Recursive })
	_, err := b.walk(ctx, dir, recursive, func(p string, _ fs.DirEntry) error { return f(p) })
	return err
}

func (b *fsBucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return err
	}
	params := objstore.ApplyIterOptions(options...)
	_, err := b.walk(ctx, dir, params.Recursive, func(p string, e fs.DirEntry) error {
		attrs := objstore.IterObjectAttributes{Name: p}
		if params.LastModified {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			attrs.SetLastModified(info.ModTime())
		}
		return f(attrs)
	})
	return err
}

// walk calls f for the entries of dir in the order of their names, directories with a slash at
// their end, and returns how often it did. A directory without objects is not there.
func (b *fsBucket) walk(ctx context.Context, dir string, recursive bool, f func(string, fs.DirEntry) error) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	dir = strings.TrimSuffix(dir, "/")
	at := dir
	if at == "" {
		at = "."
	}
	if at != path.Clean(at) || !filepath.IsLocal(at) {
		return 0, fmt.Errorf("directory name %q is not a relative path", dir)
	}
	entries, err := fs.ReadDir(b.root.FS(), at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", at, err)
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(listed(x), listed(y)) })
	n := 0
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		switch {
		case p == uploadsDir:
			continue
		case !e.IsDir():
			err, n = f(p, e), n+1
		case recursive:
			var m int
			m, err = b.walk(ctx, p, true, f)
			n += m
		default:
			err = b.visitDir(ctx, p, e, f)
			n++
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// listed is how an entry's name sorts among object names.
func listed(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// errFound ends the search for a first object.
var errFound = errors.New("found")

func (b *fsBucket) visitDir(ctx context.Context, p string, e fs.DirEntry, f func(string, fs.DirEntry) error) error {
	_, err := b.walk(ctx, p, true, func(string, fs.DirEntry) error { return errFound })
	switch {
	case errors.Is(err, errFound):
		return f(p+"/", e)
	case err != nil:
		return err
	}
	return nil
}
