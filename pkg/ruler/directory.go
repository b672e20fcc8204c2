package ruler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Directory has rules as files: one directory for each tenant, in it one rule file for each namespace,
// which is named after it. They cannot be changed from here. It implements Documents.
type Directory struct{ root *os.Root }

// OpenDirectory returns the rules in a directory. The caller closes it.
func OpenDirectory(name string) (*Directory, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, errs.New(errs.Invalid, "directory of rules: %w", err)
	}
	return &Directory{root}, nil
}

// Close lets the directory go.
func (d *Directory) Close() error { return d.root.Close() }

// errReadOnly says that rules are not changed by the API.
func errReadOnly() error {
	return errs.New(errs.Unimplemented, "rules are files of a directory here, and cannot be changed by the API")
}

// Put implements Documents.
func (*Directory) Put(context.Context, string, []byte, docstore.Version) (docstore.Version, error) {
	return "", errReadOnly()
}

// Delete implements Documents.
func (*Directory) Delete(context.Context, string, docstore.Version) error { return errReadOnly() }

// Get implements Documents.
func (d *Directory) Get(_ context.Context, key string) (docstore.Doc, error) {
	p, ok := placeOf(key)
	if !ok {
		return docstore.Doc{}, errs.New(errs.Invalid, "%q names no rules", key)
	}
	return d.read(p)
}

func (d *Directory) read(p place) (docstore.Doc, error) {
	// A name must not lead into the directory of another tenant.
	if !fs.ValidPath(p.namespace) || p.namespace == "." || strings.ContainsAny(p.namespace, `/\`) {
		return docstore.Doc{}, errNoGroup()
	}
	f, err := d.root.Open(path.Join(string(p.tenant), p.namespace))
	if errors.Is(err, fs.ErrNotExist) {
		return docstore.Doc{}, errs.New(errs.NotFound, "there is no file for namespace %s", p.namespace)
	}
	if err != nil {
		return docstore.Doc{}, errs.Wrap(errs.Unavailable, err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxDocumentBytes+1))
	if err != nil {
		return docstore.Doc{}, errs.Wrap(errs.Unavailable, err)
	}
	if len(data) > maxDocumentBytes {
		return docstore.Doc{}, errs.New(errs.Invalid, "file %s is larger than %d bytes", f.Name(), maxDocumentBytes)
	}
	key, err := DocumentKey(p.tenant, p.namespace)
	if err != nil {
		return docstore.Doc{}, err
	}
	sum := sha256.Sum256(data)
	return docstore.Doc{Key: key, Data: data, Version: docstore.Version(hex.EncodeToString(sum[:]))}, nil
}

// List implements Documents. A version is that of the content, so that every file is read.
func (d *Directory) List(_ context.Context, prefix string) ([]docstore.Entry, error) {
	tenants, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	var out []docstore.Entry
	for _, dir := range tenants {
		id, err := tenant.Parse(dir.Name())
		if err != nil || !dir.IsDir() || !strings.HasPrefix(tenantPrefix(id), prefix) && !strings.HasPrefix(prefix, tenantPrefix(id)) {
			continue
		}
		files, err := fs.ReadDir(d.root.FS(), dir.Name())
		if err != nil {
			return nil, errs.Wrap(errs.Unavailable, err)
		}
		for _, f := range files {
			if f.IsDir() || strings.HasPrefix(f.Name(), ".") {
				continue // such as what a mounted ConfigMap has beside its files
			}
			doc, err := d.read(place{id, f.Name()})
			if errs.KindOf(err) == errs.NotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(doc.Key, prefix) {
				out = append(out, docstore.Entry{Key: doc.Key, Version: doc.Version, Size: int64(len(doc.Data))})
			}
		}
	}
	return out, nil
}
