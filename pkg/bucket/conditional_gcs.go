package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"cloud.google.com/go/storage"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

// gcsConditional swaps by generation.
type gcsConditional struct {
	client *storage.Client
	bucket *storage.BucketHandle
}

func openGCSConditional(ctx context.Context, cfg GCSConfig) (Conditional, error) {
	opts := []option.ClientOption{}
	if cfg.ServiceAccount != "" {
		creds, err := google.CredentialsFromJSONWithType(ctx, []byte(cfg.ServiceAccount), google.ServiceAccount, storage.ScopeReadWrite)
		if err != nil {
			return nil, fmt.Errorf("service_account: %w", err)
		}
		opts = append(opts, option.WithCredentials(creds))
	}
	client, err := storage.NewClient(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &gcsConditional{client, client.Bucket(cfg.BucketName).Retryer(storage.WithPolicy(storage.RetryNever))}, nil
}

func (b *gcsConditional) Close() error { return b.client.Close() }

// gcsError words err and tells the two outcomes in which nothing was done.
func gcsError(what, name string, err error) error {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return ErrAbsent
	}
	if e, ok := errors.AsType[*googleapi.Error](err); ok && e.Code == http.StatusPreconditionFailed {
		return ErrChanged
	}
	return fmt.Errorf("%s object %s: %w", what, name, err)
}

func generation(n int64) string { return strconv.FormatInt(n, 10) }

func (b *gcsConditional) Read(ctx context.Context, name string) (Object, error) {
	r, err := b.bucket.Object(name).NewReader(ctx)
	if err != nil {
		return Object{}, gcsError("read", name, err)
	}
	data, err := readSmall(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return Object{}, gcsError("read", name, err)
	}
	return Object{Name: name, Data: data, Size: int64(len(data)), Version: generation(r.Attrs.Generation), Modified: r.Attrs.LastModified}, nil
}

// at is the object under the condition that its version is expect.
func (b *gcsConditional) at(name, expect string) (*storage.ObjectHandle, error) {
	if expect == "" {
		return b.bucket.Object(name).If(storage.Conditions{DoesNotExist: true}), nil
	}
	n, err := strconv.ParseInt(expect, 10, 64)
	if err != nil {
		return nil, ErrChanged // not a version this store gave
	}
	return b.bucket.Object(name).If(storage.Conditions{GenerationMatch: n}), nil
}

func (b *gcsConditional) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	if len(data) == 0 {
		return "", fmt.Errorf("object %s would be empty", name)
	}
	o, err := b.at(name, expect)
	if err != nil {
		return "", err
	}
	// A writer whose context ends before Close leaves no object.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := o.NewWriter(ctx)
	w.ChunkSize = 0
	if _, err := bytes.NewReader(data).WriteTo(w); err != nil {
		cancel()
		return "", gcsError("write", name, errors.Join(err, w.Close()))
	}
	if err := w.Close(); err != nil {
		return "", gcsError("write", name, err)
	}
	return generation(w.Attrs().Generation), nil
}

func (b *gcsConditional) Remove(ctx context.Context, name, expect string) error {
	if expect == "" {
		return ErrChanged
	}
	o, err := b.at(name, expect)
	if err != nil {
		return err
	}
	if err := o.Delete(ctx); err != nil {
		if err = gcsError("delete", name, err); errors.Is(err, ErrAbsent) {
			return ErrChanged
		}
		return err
	}
	return nil
}

func (b *gcsConditional) List(ctx context.Context, prefix string) ([]Object, error) {
	var out []Object
	q := &storage.Query{Prefix: prefix}
	if err := q.SetAttrSelection([]string{"Name", "Size", "Generation", "Updated"}); err != nil {
		return nil, err
	}
	for it := b.bucket.Objects(ctx, q); ; {
		a, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		out = append(out, Object{Name: a.Name, Size: a.Size, Version: generation(a.Generation), Modified: a.Updated})
	}
}
