// Package docstore owns the small documents of tenants and of the cluster: rule files, alertmanager
// definitions, workspaces, identities. Each is one object in the bucket, updated by compare-and-swap,
// so that any process can make any change and the next read anywhere sees it, without a database.
package docstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/grafana/dskit/backoff"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Prefix is where all documents lie, in a directory no tenant can be named after.
const Prefix = "__amphora_cluster/documents"

// Version names one state of a document; "" is that it does not exist.
type Version string

// Doc is one version of a document. Its data belongs to the caller.
type Doc struct {
	Key      string
	Data     []byte
	Version  Version
	Modified time.Time
}

// Entry is a document in a listing.
type Entry struct {
	Key      string
	Version  Version
	Modified time.Time
	Size     int64 // bytes
}

// Store keeps documents below one prefix. Its methods may be called at the same time. A key is a
// slash-separated path. Errors that are not named in a method's comment are Unavailable: the bucket
// did not answer, and a change may or may not have been made.
type Store struct {
	bucket bucket.Conditional
	prefix string
	m      metrics
}

// New keeps documents in b below prefix. The caller closes b.
func New(b bucket.Conditional, prefix string, reg prometheus.Registerer) *Store {
	return &Store{bucket: b, prefix: strings.Trim(prefix, "/") + "/", m: newMetrics(reg)}
}

// retries bounds how often a call that failed is made again. Together the waits are shorter than
// what an HTTP client waits for an answer.
func retries() backoff.Config {
	return backoff.Config{MinBackoff: 50 * time.Millisecond, MaxBackoff: 2 * time.Second, MaxRetries: 5}
}

// contention is how a writer waits that others were faster than: long enough to let them through.
func contention() backoff.Config {
	return backoff.Config{MinBackoff: 5 * time.Millisecond, MaxBackoff: 500 * time.Millisecond, MaxRetries: 40}
}

func (s *Store) object(key string) (string, error) {
	if key == "" || path.Clean(key) != key || key[0] == '/' || key == ".." || strings.HasPrefix(key, "../") {
		return "", errs.New(errs.Invalid, "document key %q is not a relative path", key)
	}
	return s.prefix + key, nil
}

// again calls try until it returns nil or one of the final errors, or the retries are used up.
func (s *Store) again(ctx context.Context, operation, key string, try func() error) error {
	began := time.Now()
	err := s.tryAgain(ctx, try)
	s.m.done(operation, err, time.Since(began))
	switch {
	case err == nil, errors.Is(err, bucket.ErrAbsent), errors.Is(err, bucket.ErrChanged):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%s document %s: %w", operation, key, err)
	}
	return errs.New(errs.Unavailable, "%s document %s: %w", operation, key, err)
}

func (s *Store) tryAgain(ctx context.Context, try func() error) error {
	b := backoff.New(ctx, retries())
	var err error
	for b.Ongoing() {
		err = try()
		if err == nil || errors.Is(err, bucket.ErrAbsent) || errors.Is(err, bucket.ErrChanged) {
			return err
		}
		b.Wait()
	}
	if err == nil {
		err = b.Err()
	}
	return err
}

// Get returns the document. Errors: NotFound.
func (s *Store) Get(ctx context.Context, key string) (Doc, error) {
	name, err := s.object(key)
	if err != nil {
		return Doc{}, err
	}
	var o bucket.Object
	err = s.again(ctx, "read", key, func() (err error) { o, err = s.bucket.Read(ctx, name); return err })
	if errors.Is(err, bucket.ErrAbsent) {
		return Doc{}, errs.New(errs.NotFound, "document %s does not exist", key)
	}
	if err != nil {
		return Doc{}, err
	}
	return Doc{Key: key, Data: o.Data, Version: Version(o.Version), Modified: o.Modified}, nil
}

// Put writes data, which must not be empty, if the document's version is expect, and returns the
// new version. Errors: Conflict.
func (s *Store) Put(ctx context.Context, key string, data []byte, expect Version) (Version, error) {
	name, err := s.object(key)
	if err != nil {
		return "", err
	}
	if len(data) == 0 {
		return "", errs.New(errs.Invalid, "document %s would be empty", key)
	}
	var version string
	unanswered := false // some try was
	err = s.again(ctx, "write", key, func() (err error) {
		version, err = s.bucket.Swap(ctx, name, data, string(expect))
		if unanswered && errors.Is(err, bucket.ErrChanged) {
			// It may have been this call that changed it, in a try that got no answer.
			now, rerr := s.bucket.Read(ctx, name)
			if rerr == nil && bytes.Equal(now.Data, data) {
				version, err = now.Version, nil
			}
		}
		unanswered = unanswered || err != nil && !errors.Is(err, bucket.ErrChanged)
		return err
	})
	switch {
	case !errors.Is(err, bucket.ErrChanged):
		return Version(version), err
	case unanswered:
		return "", uncertain(key)
	}
	return "", conflict(key, expect)
}

// uncertain is what a call is told that got no answer to a try and then found the document changed: that
// was this call's try, and another's change on top of it, or it was another's change alone. To call it a
// conflict would have the caller make its change a second time.
func uncertain(key string) error {
	return errs.New(errs.Unavailable, "a try to change document %s got no answer, and it was changed by somebody else meanwhile; read it to see whether the change was made", key)
}

func conflict(key string, expect Version) error {
	if expect == "" {
		return errs.New(errs.Conflict, "document %s exists already", key)
	}
	return errs.New(errs.Conflict, "document %s was changed by somebody else; read it and try again", key)
}

// Overwrite writes data, which must not be empty, whatever the document's version is.
func (s *Store) Overwrite(ctx context.Context, key string, data []byte) (Version, error) {
	d, err := s.Update(ctx, key, func(Doc) ([]byte, error) { return data, nil })
	return d.Version, err
}

// Delete removes the document if its version is expect. Errors: Conflict, NotFound.
func (s *Store) Delete(ctx context.Context, key string, expect Version) error {
	name, err := s.object(key)
	if err != nil {
		return err
	}
	unanswered, gone := false, false
	err = s.again(ctx, "delete", key, func() error {
		err := s.bucket.Remove(ctx, name, string(expect))
		if errors.Is(err, bucket.ErrChanged) {
			if _, rerr := s.bucket.Read(ctx, name); errors.Is(rerr, bucket.ErrAbsent) {
				gone = true
			}
		}
		unanswered = unanswered || err != nil && !errors.Is(err, bucket.ErrChanged)
		return err
	})
	switch {
	case !errors.Is(err, bucket.ErrChanged):
		return err
	case gone && unanswered:
		return nil // by a try of this call that got no answer
	case gone:
		return errs.New(errs.NotFound, "document %s does not exist", key)
	case unanswered:
		return uncertain(key)
	}
	return conflict(key, expect)
}

// List returns the documents whose keys begin with prefix, sorted by key. A prefix that ends with
// a slash is a directory with all below it.
func (s *Store) List(ctx context.Context, prefix string) ([]Entry, error) {
	var os []bucket.Object
	err := s.again(ctx, "list", prefix, func() (err error) { os, err = s.bucket.List(ctx, s.prefix+prefix); return err })
	if err != nil {
		return nil, err
	}
	out := make([]Entry, len(os))
	for i, o := range os {
		out[i] = Entry{strings.TrimPrefix(o.Name, s.prefix), Version(o.Version), o.Modified, o.Size}
	}
	return out, nil
}

// Update reads the document, lets change make its next state and writes that, again from the start
// when somebody else was faster. A document that does not exist is given to change with Version "".
// A change that returns nil data and no error leaves all as it is. Errors: those of change, and
// Conflict when others are faster all the time.
func (s *Store) Update(ctx context.Context, key string, change func(old Doc) ([]byte, error)) (Doc, error) {
	b := backoff.New(ctx, contention())
	for b.Ongoing() {
		old, err := s.Get(ctx, key)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return Doc{}, err
		}
		old.Key = key
		data, err := change(old)
		if err != nil || data == nil {
			return old, err
		}
		version, err := s.Put(ctx, key, data, old.Version)
		if err == nil {
			return Doc{Key: key, Data: data, Version: version, Modified: time.Now()}, nil
		}
		if errs.KindOf(err) != errs.Conflict {
			return Doc{}, err
		}
		s.m.conflicts.Inc()
		b.Wait()
	}
	if ctx.Err() != nil {
		return Doc{}, context.Cause(ctx)
	}
	return Doc{}, errs.New(errs.Conflict, "document %s is changed by others all the time; try again", key)
}
