package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Object is one version of a small object.
type Object struct {
	Name     string
	Data     []byte // nil in listings
	Size     int64  // bytes
	Version  string // opaque, never empty
	Modified time.Time
}

// Conditional is a bucket whose small objects change by compare-and-swap: of two writers that saw
// the same version, one succeeds. Reads see the last completed write, from every process. No call
// is retried, so that the caller knows when an outcome is unknown.
type Conditional interface {
	// Read returns the object. Errors: ErrAbsent.
	Read(ctx context.Context, name string) (Object, error)
	// Swap writes data if the object's version is expect, where "" means absent, and returns the
	// new version. data must not be empty. Errors: ErrChanged; after any other the outcome is
	// unknown.
	Swap(ctx context.Context, name string, data []byte, expect string) (string, error)
	// Remove deletes the object if its version is expect. Errors: ErrChanged, also when it is
	// absent; after any other the outcome is unknown.
	Remove(ctx context.Context, name, expect string) error
	// List returns all objects whose names begin with prefix, sorted by name, without data.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Close lets go of connections.
	Close() error
}

// What Conditional answers when nothing was done.
var (
	ErrAbsent  = errors.New("object does not exist")
	ErrChanged = errors.New("object was changed by somebody else")
)

// maxConditionalBytes bounds what Read takes into memory. It covers the largest document, a rule
// file or alertmanager definition with its templates, many times.
const maxConditionalBytes = 64 << 20

// OpenConditional opens the bucket that cfg names for compare-and-swap. The caller closes it. No
// call is made to the store. Errors: Invalid.
func OpenConditional(ctx context.Context, cfg Config, logger *slog.Logger) (Conditional, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var b Conditional
	var err error
	switch cfg.Backend {
	case S3:
		b, err = openS3Conditional(cfg.S3)
	case GCS:
		b, err = openGCSConditional(ctx, cfg.GCS)
	case Azure:
		b, err = openAzureConditional(cfg.Azure)
	default:
		b, err = NewConditionalFilesystem(cfg.Filesystem.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s bucket for documents: %w", cfg.Backend, err)
	}
	logger.Debug("bucket for documents is open", "backend", cfg.Backend)
	if cfg.StoragePrefix != "" {
		b = &prefixed{b, cfg.StoragePrefix + "/"}
	}
	return b, nil
}

// prefixed keeps all objects below one prefix.
type prefixed struct {
	Conditional
	prefix string
}

func (p *prefixed) Read(ctx context.Context, name string) (Object, error) {
	o, err := p.Conditional.Read(ctx, p.prefix+name)
	o.Name = name
	return o, err
}

func (p *prefixed) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	return p.Conditional.Swap(ctx, p.prefix+name, data, expect)
}

func (p *prefixed) Remove(ctx context.Context, name, expect string) error {
	return p.Conditional.Remove(ctx, p.prefix+name, expect)
}

func (p *prefixed) List(ctx context.Context, prefix string) ([]Object, error) {
	os, err := p.Conditional.List(ctx, p.prefix+prefix)
	for i := range os {
		os[i].Name = strings.TrimPrefix(os[i].Name, p.prefix)
	}
	return os, err
}
