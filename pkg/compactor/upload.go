package compactor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Names of objects beside a block that is being uploaded.
const (
	uploadingMeta  = "uploading-meta.json"
	validationFile = "validation.json"
)

const (
	maxUploadedMetaBytes = 1 << 20
	// validationHeartbeat is how often a validation says that it goes on; one that was silent for
	// validationLost is taken for dead and may be begun again.
	validationHeartbeat = time.Minute
	validationLost      = 5 * time.Minute
	// validations is how many uploaded blocks are checked at the same time: each is copied to disk.
	validations = 1
)

// UploadState is where the upload of a block stands.
type UploadState string

// The states.
const (
	UploadComplete   UploadState = "complete"
	UploadUploading  UploadState = "uploading"
	UploadValidating UploadState = "validating"
	UploadFailed     UploadState = "failed"
)

// validation is the content of validationFile.
type validation struct {
	LastUpdate int64  `json:"last_update"` // milliseconds
	Error      string `json:"error,omitempty"`
}

// uploadable checks whether the tenant may upload blocks.
func (c *Compactor) uploadable(id tenant.ID) (limits.View, error) {
	v := c.deps.Limits(id)
	if !limits.CompactorBlockUploadEnabled.Of(v) {
		return v, errs.New(errs.Invalid, "block upload is disabled for tenant %s; set -%s", id, limits.CompactorBlockUploadEnabled.Row().Flag)
	}
	return v, nil
}

// StartUpload begins the upload of a block with its meta file. Errors: Invalid for a meta file that
// cannot be accepted, Conflict if the block is there already, TooLarge, Unavailable.
func (c *Compactor) StartUpload(ctx context.Context, id tenant.ID, b ulid.ULID, body io.Reader) error {
	ctx = bucket.Because(ctx, bucket.Import)
	v, err := c.uploadable(id)
	if err != nil {
		return err
	}
	if err := c.notComplete(ctx, id, b); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxUploadedMetaBytes+1))
	if err != nil {
		return errs.New(errs.Invalid, "read the meta file: %w", err)
	}
	if len(data) > maxUploadedMetaBytes {
		return errs.New(errs.BodyTooLarge, "the meta file has more than %d bytes", maxUploadedMetaBytes)
	}
	m, err := block.ParseMeta(data)
	if err != nil {
		return errs.New(errs.Invalid, "malformed request body: %w", err)
	}
	if err := c.acceptable(v, b, &m); err != nil {
		return err
	}
	out, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.bucket(id).Upload(ctx, path.Join(b.String(), uploadingMeta), bytes.NewReader(out)); err != nil {
		return errs.New(errs.Unavailable, "write %s of block %s: %w", uploadingMeta, b, err)
	}
	c.deps.Logger.Info("upload of a block begun", "tenant", id, "block", b, "files", len(m.Thanos.Files))
	return nil
}

// notComplete refuses a block that is there. Errors: Conflict.
func (c *Compactor) notComplete(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	there, err := c.bucket(id).Exists(ctx, path.Join(b.String(), block.MetaFile))
	switch {
	case err != nil:
		return errs.New(errs.Unavailable, "look for block %s: %w", b, err)
	case there:
		return errs.New(errs.Conflict, "block %s already exists", b)
	}
	return nil
}

// acceptable checks a meta file and rids it of what does not belong into this bucket.
func (c *Compactor) acceptable(v limits.View, b ulid.ULID, m *block.Meta) error {
	now := c.deps.Now()
	m.ULID = b
	switch {
	case m.MinTime < 0 || m.MaxTime <= m.MinTime:
		return errs.New(errs.Invalid, "invalid minTime/maxTime in meta.json: minTime=%d, maxTime=%d", m.MinTime, m.MaxTime)
	case m.MinTime > now.UnixMilli() || m.MaxTime > now.Add(2*time.Hour).UnixMilli():
		return errs.New(errs.Invalid, "block time range is in the future: minTime=%d, maxTime=%d", m.MinTime, m.MaxTime)
	case m.Thanos.Downsample.Resolution > 0:
		return errs.New(errs.Invalid, "block contains downsampled data")
	}
	if keep := limits.CompactorBlocksRetentionPeriod.Of(v); keep > 0 && m.MaxTime < now.Add(-keep).UnixMilli() {
		return errs.New(errs.Unprocessable, "block max time (%s) older than retention period (%s)", time.UnixMilli(m.MaxTime).UTC().Format(time.RFC3339), keep)
	}
	for name, value := range m.Thanos.Labels {
		if name != block.ShardLabel {
			delete(m.Thanos.Labels, name) // of another cluster, and without a meaning here
			continue
		}
		var i, n int
		if _, err := fmt.Sscanf(value, "%d_of_%d", &i, &n); err != nil || i < 1 || i > n || shardName(i-1, n) != value {
			return errs.New(errs.Invalid, "invalid %s external label: %q", block.ShardLabel, value)
		}
	}
	total := int64(0)
	hasIndex := false
	for _, f := range m.Thanos.Files {
		switch {
		case f.RelPath == block.MetaFile:
		case !block.IsData(f.RelPath):
			return errs.New(errs.Invalid, "file with invalid path: %s", f.RelPath)
		case f.SizeBytes <= 0:
			return errs.New(errs.Invalid, "file with invalid size: %s", f.RelPath)
		}
		hasIndex = hasIndex || f.RelPath == block.IndexFile
		total += f.SizeBytes
	}
	if !hasIndex {
		return errs.New(errs.Invalid, "meta.json lists no %s in thanos.files; the files and their sizes must be listed", block.IndexFile)
	}
	if most := limits.CompactorBlockUploadMaxBlockSizeBytes.Of(v); most > 0 && total > int64(most) {
		return errs.Limit(errs.Invalid, "", limits.CompactorBlockUploadMaxBlockSizeBytes.Row().Flag, limits.CompactorBlockUploadMaxBlockSizeBytes.Row().Name,
			"block of %d bytes exceeds the maximum of %d bytes", total, most)
	}
	m.Thanos.Source = "upload"
	m.Amphora = nil // of the deletions of another cluster
	return nil
}

// uploading returns the meta file of an upload that has begun. Errors: NotFound, Conflict.
func (c *Compactor) uploading(ctx context.Context, id tenant.ID, b ulid.ULID) (block.Meta, error) {
	if err := c.notComplete(ctx, id, b); err != nil {
		return block.Meta{}, err
	}
	bkt := c.bucket(id)
	r, err := bkt.Get(ctx, path.Join(b.String(), uploadingMeta))
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			// It is removed when the block is published, which may have been since the look above.
			if err := c.notComplete(ctx, id, b); err != nil {
				return block.Meta{}, err
			}
			return block.Meta{}, errs.New(errs.NotFound, "upload of block %s not started yet", b)
		}
		return block.Meta{}, errs.New(errs.Unavailable, "read %s of block %s: %w", uploadingMeta, b, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, 2*maxUploadedMetaBytes))
	if err := errors.Join(err, r.Close()); err != nil {
		return block.Meta{}, errs.New(errs.Unavailable, "read %s of block %s: %w", uploadingMeta, b, err)
	}
	return block.ParseMeta(data)
}

// UploadFile takes one file of a block whose upload has begun; size is what the sender announces.
// Errors: Invalid for a file that the meta file does not list, or of another size; NotFound if the
// upload has not begun; Conflict if it is complete; Unavailable.
func (c *Compactor) UploadFile(ctx context.Context, id tenant.ID, b ulid.ULID, name string, size int64, body io.Reader) error {
	ctx = bucket.Because(ctx, bucket.Import)
	if _, err := c.uploadable(id); err != nil {
		return err
	}
	if name == "" || name == block.MetaFile || !block.IsData(name) {
		return errs.New(errs.Invalid, "invalid path: %q", name)
	}
	if size <= 0 {
		return errs.New(errs.Invalid, "file %s cannot be empty; announce its size by Content-Length", name)
	}
	m, err := c.uploading(ctx, id, b)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Thanos.Files, func(f block.File) bool { return f.RelPath == name })
	switch {
	case i < 0:
		return errs.New(errs.Invalid, "unexpected file %s: the meta file does not list it", name)
	case m.Thanos.Files[i].SizeBytes != size:
		return errs.New(errs.Invalid, "file %s has %d bytes, the meta file says %d", name, size, m.Thanos.Files[i].SizeBytes)
	}
	done, err := c.uploads.write(uploaded{id, b})
	if err != nil {
		return err
	}
	defer done()
	if err := c.replaceable(ctx, id, b); err != nil {
		return err
	}
	exact := &exactReader{r: body, left: size, whole: func() error { return c.replaceable(ctx, id, b) }}
	if err := c.bucket(id).Upload(ctx, path.Join(b.String(), name), exact); err != nil {
		switch {
		case exact.short:
			return errs.New(errs.Invalid, "file %s ended %d bytes early", name, exact.left)
		case exact.late != nil:
			return exact.late
		}
		return errs.New(errs.Unavailable, "write %s of block %s: %w", name, b, err)
	}
	return nil
}

// replaceable refuses files of a block that some process checks or has published. Errors: Conflict, NotFound,
// Unavailable.
func (c *Compactor) replaceable(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	switch s, _, err := c.UploadState(ctx, id, b); {
	case err != nil:
		return err
	case s == UploadValidating:
		return beingValidated(b)
	case s == UploadComplete:
		return errs.New(errs.Conflict, "block %s already exists", b)
	}
	return nil
}

// exactReader fails if its source has fewer bytes than announced, or if whole says so once all are there, so that
// no object is made of them.
type exactReader struct {
	r     io.Reader
	left  int64
	whole func() error
	short bool
	late  error // what whole said
}

func (e *exactReader) Read(p []byte) (int, error) {
	switch {
	case e.late != nil:
		return 0, e.late
	case e.left == 0:
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); e.left == 0 {
		if e.late = e.whole(); e.late != nil {
			return 0, e.late
		}
	}
	if errors.Is(err, io.EOF) {
		if e.left > 0 {
			e.short = true
			return n, io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// FinishUpload ends the upload of a block: it is checked, in the background, and then published.
// Errors: NotFound, Conflict, Overloaded if too many blocks are being checked, Unavailable.
func (c *Compactor) FinishUpload(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	ctx = bucket.Because(ctx, bucket.Import)
	v, err := c.uploadable(id)
	if err != nil {
		return err
	}
	m, err := c.uploading(ctx, id, b)
	if err != nil {
		return err
	}
	done, err := c.uploads.end(uploaded{id, b})
	if err != nil {
		return err
	}
	if err := c.replaceable(ctx, id, b); err != nil {
		done()
		return err
	}
	if !limits.CompactorBlockUploadValidationEnabled.Of(v) {
		defer done()
		return c.publish(ctx, id, m)
	}
	select {
	case c.checks <- struct{}{}:
	default:
		done()
		return errs.New(errs.RateLimited, "too many block upload validations in progress, limit is %d; try again later", validations)
	}
	if err := c.note(ctx, id, b, ""); err != nil {
		<-c.checks
		done()
		return err
	}
	c.background.Go(func() {
		defer func() { <-c.checks }()
		c.validate(c.life, id, m, limits.CompactorBlockUploadVerifyChunks.Of(v), done)
	})
	return nil
}

// note writes the state of a validation.
func (c *Compactor) note(ctx context.Context, id tenant.ID, b ulid.ULID, problem string) error {
	data, err := json.Marshal(validation{LastUpdate: c.deps.Now().UnixMilli(), Error: problem})
	if err != nil {
		return err
	}
	if err := c.bucket(id).Upload(ctx, path.Join(b.String(), validationFile), bytes.NewReader(data)); err != nil {
		return errs.New(errs.Unavailable, "write %s of block %s: %w", validationFile, b, err)
	}
	return nil
}

// validate checks an uploaded block and publishes it if it is whole. It calls done before it says that it is not: then
// its files may be sent again.
func (c *Compactor) validate(ctx context.Context, id tenant.ID, m block.Meta, chunks bool, done func()) {
	alive, stop := context.WithCancel(ctx)
	c.background.Go(func() {
		tick := time.NewTicker(validationHeartbeat)
		defer tick.Stop()
		for {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
				if err := c.note(alive, id, m.ULID, ""); err != nil && alive.Err() == nil {
					c.deps.Logger.Warn("validation of an uploaded block not noted", "tenant", id, "block", m.ULID, "err", err)
				}
			}
		}
	})
	err := c.guarded("checking an uploaded block", func() error { return c.checkUploaded(ctx, id, &m, chunks) }, "tenant", id, "block", m.ULID)
	stop()
	if err == nil {
		err = c.publish(ctx, id, m)
	}
	done()
	if err == nil || ctx.Err() != nil {
		return
	}
	c.metrics.uploadsFailed.Inc()
	c.deps.Logger.Warn("uploaded block refused", "tenant", id, "block", m.ULID, "err", err)
	if err := c.note(ctx, id, m.ULID, err.Error()); err != nil {
		c.deps.Logger.Warn("refusal of an uploaded block not noted", "tenant", id, "block", m.ULID, "err", err)
	}
}

// checkUploaded copies a block here and reads it. It notes the checksums of its files in m, by which it is seen if
// one is replaced after all.
func (c *Compactor) checkUploaded(ctx context.Context, id tenant.ID, m *block.Meta, chunks bool) (err error) {
	dir := filepath.Join(c.cfg.DataDir, "uploads", string(id), m.ULID.String())
	if err := os.RemoveAll(dir); err != nil {
		return errs.New(errs.Unavailable, "prepare the validation: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := block.Download(ctx, c.bucket(id), *m, dir); err != nil {
		return err
	}
	r, err := block.OpenIndex(filepath.Join(dir, block.IndexFile))
	if err != nil {
		return err
	}
	v := r.Version()
	if err := r.Close(); err != nil {
		return err
	}
	if v == index.FormatV1 {
		return errs.New(errs.Invalid, "the index has version 1, which is not supported")
	}
	if chunks {
		if err := check(ctx, dir, ofEverything); err != nil {
			return err
		}
	}
	return block.NoteSums(m, dir)
}

// publish makes an uploaded block visible. Its meta file goes last.
func (c *Compactor) publish(ctx context.Context, id tenant.ID, m block.Meta) error {
	bkt := c.bucket(id)
	if err := block.PublishMeta(ctx, bkt, m); err != nil {
		return fmt.Errorf("publish block %s: %w", m.ULID, err)
	}
	for _, name := range []string{uploadingMeta, validationFile} {
		if err := bkt.Delete(ctx, path.Join(m.ULID.String(), name)); err != nil && !bkt.IsObjNotFoundErr(err) {
			c.deps.Logger.Warn("left-over of a block upload not deleted", "tenant", id, "block", m.ULID, "object", name, "err", err)
		}
	}
	c.metrics.uploads.Inc()
	c.deps.Logger.Info("uploaded block published", "tenant", id, "block", m.ULID)
	_, err := block.AddToBucketIndex(ctx, bkt, c.deps.Now(), m.Indexed(c.deps.Now()))
	return err
}

// UploadState says where the upload of a block stands, and if it failed, why. Errors: NotFound,
// Unavailable.
func (c *Compactor) UploadState(ctx context.Context, id tenant.ID, b ulid.ULID) (UploadState, string, error) {
	if _, err := c.uploadable(id); err != nil {
		return "", "", err
	}
	if _, err := c.uploading(ctx, id, b); errs.KindOf(err) == errs.Conflict {
		return UploadComplete, "", nil
	} else if err != nil {
		return "", "", err
	}
	bkt := c.bucket(id)
	r, err := bkt.Get(ctx, path.Join(b.String(), validationFile))
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return UploadUploading, "", nil
		}
		return "", "", errs.New(errs.Unavailable, "read %s of block %s: %w", validationFile, b, err)
	}
	var v validation
	err = json.NewDecoder(io.LimitReader(r, maxUploadedMetaBytes)).Decode(&v)
	if err := errors.Join(err, r.Close()); err != nil {
		return "", "", errs.New(errs.Unavailable, "read %s of block %s: %w", validationFile, b, err)
	}
	switch {
	case v.Error != "":
		return UploadFailed, v.Error, nil
	case c.deps.Now().Sub(time.UnixMilli(v.LastUpdate)) > validationLost:
		return UploadUploading, "", nil // whoever checked it is gone; it may be finished again
	}
	return UploadValidating, "", nil
}

// DeleteTenant marks a tenant for deletion: its blocks go in the next round of cleaning up. Errors:
// Unavailable.
func (c *Compactor) DeleteTenant(ctx context.Context, id tenant.ID) error {
	bkt := c.bucket(id)
	if d, err := block.ReadTenantDeletion(ctx, bkt); err != nil {
		return err
	} else if d != nil {
		return c.forget(ctx, id)
	}
	if err := c.hideAll(ctx, id); err != nil {
		return err
	}
	if err := block.WriteTenantDeletion(ctx, bkt, block.TenantDeletion{DeletionTime: c.deps.Now().Unix()}); err != nil {
		return err
	}
	c.deps.Logger.Info("tenant marked for deletion", "tenant", id)
	return c.forget(ctx, id)
}

// forget deletes what is known of a tenant elsewhere.
func (c *Compactor) forget(ctx context.Context, id tenant.ID) error {
	if c.deps.Forget == nil {
		return nil
	}
	return c.deps.Forget(ctx, id)
}

// hideAll hides what there is of a tenant from queries: ingesters have its samples for hours after its blocks are
// gone.
func (c *Compactor) hideAll(ctx context.Context, id tenant.ID) error {
	if c.deps.Deletions == nil {
		return nil
	}
	_, err := c.deps.Deletions.Add(ctx, id, []string{`{__name__!=""}`}, math.MinInt64, math.MaxInt64)
	if errs.KindOf(err) == errs.Conflict { // which must not keep the tenant from being deleted
		c.deps.Logger.Warn("what ingesters have of a deleted tenant is shown until they forget it, it has too many requests to delete series", "tenant", id, "err", err)
		return nil
	}
	return err
}

// TenantDeleted says whether all blocks of a tenant are gone. Errors: Unavailable.
func (c *Compactor) TenantDeleted(ctx context.Context, id tenant.ID) (bool, error) {
	found := errors.New("a block")
	err := c.bucket(id).Iter(ctx, "", func(name string) error {
		if _, err := ulid.ParseStrict(path.Base(name)); err == nil {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return false, nil
	}
	if err != nil {
		return false, errs.New(errs.Unavailable, "list blocks: %w", err)
	}
	return true, nil
}

// UploadResult is UploadState for who shows it.
func (c *Compactor) UploadResult(ctx context.Context, id tenant.ID, b ulid.ULID) (state, problem string, err error) {
	s, problem, err := c.UploadState(ctx, id, b)
	return string(s), problem, err
}

// Tenants returns the tenants of the bucket.
func (c *Compactor) Tenants(ctx context.Context) ([]tenant.ID, error) {
	return block.Tenants(ctx, c.deps.Bucket)
}
