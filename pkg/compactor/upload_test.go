package compactor

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// uploader is a client with a block on its disk.
type uploader struct {
	w    *world
	c    *Compactor
	id   ulid.ULID
	dir  string
	meta block.Meta
}

func newUploader(t *testing.T) *uploader {
	t.Helper()
	w := newWorld(t)
	w.limits = limits.CompactorBlockUploadEnabled.With(w.limits, true)
	id := w.replica(0, 10, nil)
	m, err := block.ReadMeta(t.Context(), w.tenantBucket(), id)
	if err != nil {
		t.Fatal(err)
	}
	u := &uploader{w: w, c: w.compactor(), id: id, meta: m, dir: filepath.Join(t.TempDir(), id.String())}
	if err := block.Download(t.Context(), w.tenantBucket(), m, u.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := block.Delete(t.Context(), w.tenantBucket(), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.c.end(); u.c.background.Wait() })
	return u
}

// withoutSums has uploaded all files of a block whose sender does not say what their checksums are.
func withoutSums(t *testing.T) *uploader {
	t.Helper()
	u := newUploader(t)
	for i := range u.meta.Thanos.Files {
		u.meta.Thanos.Files[i].Hash = nil
	}
	if err := u.start(nil); err != nil {
		t.Fatal(err)
	}
	u.all()
	return u
}

func (u *uploader) start(change func(*block.Meta)) error {
	m := u.meta
	m.Thanos.Labels = map[string]string{"cluster": "elsewhere"}
	m.Thanos.Files = append([]block.File(nil), u.meta.Thanos.Files...)
	if change != nil {
		change(&m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		u.w.t.Fatal(err)
	}
	return u.c.StartUpload(u.w.t.Context(), "t1", u.id, strings.NewReader(string(b)))
}

func (u *uploader) file(name string, change func([]byte) []byte) error {
	b, err := os.ReadFile(filepath.Join(u.dir, name))
	if err != nil {
		u.w.t.Fatal(err)
	}
	size := int64(len(b))
	if change != nil {
		b = change(b)
	}
	return u.c.UploadFile(u.w.t.Context(), "t1", u.id, name, size, strings.NewReader(string(b)))
}

// wait polls until the block is not being validated any more.
func (u *uploader) wait() (UploadState, string) {
	u.w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s, problem, err := u.c.UploadState(u.w.t.Context(), "t1", u.id)
		if err != nil {
			u.w.t.Fatal(err)
		}
		if s != UploadValidating || time.Now().After(deadline) {
			return s, problem
		}
		time.Sleep(time.Millisecond)
	}
}

func (u *uploader) all() {
	u.w.t.Helper()
	for _, name := range []string{block.IndexFile, block.ChunksDir + "/000001"} {
		if err := u.file(name, nil); err != nil {
			u.w.t.Fatal(err)
		}
	}
}

func TestAnUploadedBlockIsCheckedAndPublished(t *testing.T) {
	u := newUploader(t)
	if err := u.start(nil); err != nil {
		t.Fatal(err)
	}
	if len(u.w.index()) != 0 {
		t.Error("the block is visible before it is complete")
	}
	u.all()
	if s, _, err := u.c.UploadState(t.Context(), "t1", u.id); err != nil || s != UploadUploading {
		t.Errorf("before the end: %s, %v", s, err)
	}
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
		t.Fatal(err)
	}
	if s, problem := u.wait(); s != UploadComplete {
		t.Fatalf("%s: %s", s, problem)
	}
	u.w.whole("after the upload")
	m, err := block.ReadMeta(t.Context(), u.w.tenantBucket(), u.id)
	if err != nil || len(m.Thanos.Labels) != 0 || m.Thanos.Source != "upload" {
		t.Errorf("%+v, %v", m.Thanos, err)
	}
	if err := u.start(nil); errs.KindOf(err) != errs.Conflict {
		t.Errorf("again: %v, want Conflict", err)
	}
	u.c.background.Wait()
	if idx, err := block.ReadBucketIndex(t.Context(), u.w.tenantBucket()); err != nil || len(idx.Blocks) != 1 {
		t.Errorf("bucket index: %+v, %v", idx, err)
	}
}

func TestUploadsThatCannotBeAcceptedAreRefused(t *testing.T) {
	u := newUploader(t)
	u.w.limits = limits.CompactorBlockUploadMaxBlockSizeBytes.With(u.w.limits, 1<<20)
	for name, c := range map[string]struct {
		change func(*block.Meta)
		want   string
	}{
		"times":       {func(m *block.Meta) { m.MinTime, m.MaxTime = 10, 10 }, "minTime/maxTime"},
		"the future":  {func(m *block.Meta) { m.MaxTime = u.w.now.Add(3 * time.Hour).UnixMilli() }, "future"},
		"downsampled": {func(m *block.Meta) { m.Thanos.Downsample.Resolution = 1 }, "downsampled"},
		"shard":       {func(m *block.Meta) { m.Thanos.Labels[block.ShardLabel] = "5_of_2" }, "5_of_2"},
		"no index":    {func(m *block.Meta) { m.Thanos.Files = m.Thanos.Files[:1] }, "lists no index"},
		"a path":      {func(m *block.Meta) { m.Thanos.Files[0].RelPath = "../../other/000001" }, "invalid path"},
		"no size":     {func(m *block.Meta) { m.Thanos.Files[0].SizeBytes = 0 }, "invalid size"},
		"too large":   {func(m *block.Meta) { m.Thanos.Files[0].SizeBytes = 2 << 20 }, "exceeds the maximum"},
	} {
		if err := u.start(c.change); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := u.c.StartUpload(t.Context(), "t1", u.id, strings.NewReader("{")); errs.KindOf(err) != errs.Invalid {
		t.Errorf("no JSON: %v", err)
	}
	if err := u.file(block.IndexFile, nil); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a file before the start: %v, want NotFound", err)
	}
	if err := u.start(nil); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"meta":      u.file(block.MetaFile, nil),
		"not there": u.c.UploadFile(t.Context(), "t1", u.id, block.ChunksDir+"/000002", 5, strings.NewReader("12345")),
		"outside":   u.c.UploadFile(t.Context(), "t1", u.id, "../x", 5, strings.NewReader("12345")),
		"empty":     u.c.UploadFile(t.Context(), "t1", u.id, block.IndexFile, 0, strings.NewReader("")),
		"size":      u.c.UploadFile(t.Context(), "t1", u.id, block.IndexFile, 5, strings.NewReader("12345")),
		"cut":       u.file(block.IndexFile, func(b []byte) []byte { return b[:len(b)-1] }),
	} {
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("file %s: %v", name, err)
		}
	}
	u.w.limits = limits.CompactorBlockUploadEnabled.With(u.w.limits, false)
	if err := u.start(nil); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "block-upload-enabled") {
		t.Errorf("switched off: %v", err)
	}
}

func TestADamagedUploadFailsAndSaysWhy(t *testing.T) {
	u := withoutSums(t)
	if err := u.file(block.ChunksDir+"/000001", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
		t.Fatal(err)
	}
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
		t.Fatal(err)
	}
	s, problem := u.wait()
	if s != UploadFailed || !strings.Contains(problem, "chunk") || len(u.w.index()) != 0 {
		t.Fatalf("%s: %s; %d blocks are visible", s, problem, len(u.w.index()))
	}
	if err := u.file(block.ChunksDir+"/000001", nil); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil; err = u.c.FinishUpload(t.Context(), "t1", u.id) {
		if errs.KindOf(err) != errs.RateLimited || time.Now().After(deadline) { // the failed one is about to end
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if s, problem := u.wait(); s != UploadComplete {
		t.Errorf("after the file was sent again: %s: %s", s, problem)
	}
}

func TestOneBlockIsCheckedAtATime(t *testing.T) {
	u := newUploader(t)
	if err := u.start(nil); err != nil {
		t.Fatal(err)
	}
	u.all()
	u.c.checks <- struct{}{}
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); errs.KindOf(err) != errs.RateLimited {
		t.Errorf("while another is checked: %v, want RateLimited", err)
	}
	<-u.c.checks
}

func TestATenantIsDeletedWhenItsLastBlockIs(t *testing.T) {
	w := newWorld(t)
	w.replica(0, 2, nil)
	requests, _ := w.deleter()
	c := w.compactor()
	c.deps.Deletions = requests
	if done, err := c.TenantDeleted(t.Context(), "t1"); done || err != nil {
		t.Errorf("before: %v, %v", done, err)
	}
	for range 2 { // the second has nothing to do
		if err := c.DeleteTenant(t.Context(), "t1"); err != nil {
			t.Fatal(err)
		}
	}
	hidden, err := requests.InForce(t.Context(), "t1")
	if err != nil || len(hidden.List()) != 1 {
		t.Fatalf("hidden: %v, %v", hidden.List(), err)
	}
	times := hidden.Of(labels.FromStrings("__name__", "m", "i", "0003"))
	if now := w.now.UnixMilli(); !tombstone.Covers(times, 0, now) || tombstone.Covers(times, now+1, now+2) {
		t.Errorf("what ingesters have is hidden at %v, want all until %d", times, now)
	}
	if err := c.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done, err := c.TenantDeleted(t.Context(), "t1"); !done || err != nil {
		t.Errorf("after: %v, %v", done, err)
	}
}

// slowFile sends a file of u through c of which the last half waits for the rest to be told, and returns how it went.
func (u *uploader) slowFile(c *Compactor, name string) (finish func() error) {
	u.w.t.Helper()
	b, err := os.ReadFile(filepath.Join(u.dir, name))
	if err != nil {
		u.w.t.Fatal(err)
	}
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() { result <- c.UploadFile(u.w.t.Context(), "t1", u.id, name, int64(len(b)), r) }()
	if _, err := w.Write(b[:len(b)/2]); err != nil {
		u.w.t.Fatal(err)
	}
	return func() error {
		b[len(b)/2] ^= 1
		_, _ = w.Write(b[len(b)/2:])
		_ = w.Close()
		return <-result
	}
}

// TestAFileThatIsStillSentKeepsABlockFromBeingChecked: in the same process.
func TestAFileThatIsStillSentKeepsABlockFromBeingChecked(t *testing.T) {
	u := withoutSums(t)
	finish := u.slowFile(u.c, block.IndexFile)
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); errs.KindOf(err) != errs.RateLimited || !strings.Contains(err.Error(), "are still being sent: 1;") {
		t.Errorf("the end while a file is sent: %v, want RateLimited", err)
	}
	if err := finish(); err != nil {
		t.Fatal(err)
	}
	if err := u.file(block.IndexFile, nil); err != nil {
		t.Fatal(err)
	}
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
		t.Fatal(err)
	}
	if s, problem := u.wait(); s != UploadComplete {
		t.Errorf("%s: %s", s, problem)
	}
	if u.c.background.Wait(); len(u.c.uploads.turns) != 0 {
		t.Errorf("%d turns are left", len(u.c.uploads.turns))
	}
}

// TestAFileThatEndsAfterTheCheckOfAnotherProcessReplacesNothing: that has begun, or has published the block.
func TestAFileThatEndsAfterTheCheckOfAnotherProcessReplacesNothing(t *testing.T) {
	for _, published := range []bool{false, true} {
		u := withoutSums(t)
		finish := u.slowFile(u.w.compactor(), block.IndexFile)
		if published {
			if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
				t.Fatal(err)
			}
			if s, problem := u.wait(); s != UploadComplete {
				t.Fatalf("%s: %s", s, problem)
			}
			u.c.background.Wait()
		} else if err := u.c.note(t.Context(), "t1", u.id, ""); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(filepath.Join(u.dir, block.IndexFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := finish(); errs.KindOf(err) != errs.Conflict {
			t.Errorf("published %v: %v, want Conflict", published, err)
		}
		r, err := u.w.tenantBucket().Get(t.Context(), u.id.String()+"/"+block.IndexFile)
		if err != nil {
			t.Fatal(err)
		}
		after, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, after) {
			t.Errorf("published %v: the file was replaced", published)
		}
	}
}
