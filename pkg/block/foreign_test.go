package block

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// foreign are the thanos sections that other programs write; FILES stands for the list of files.
var foreign = map[string]string{
	"Prometheus": ``,
	"Thanos sidecar": `{"version":1,"labels":{"cluster":"eu","replica":"a"},"downsample":{"resolution":0},"source":"sidecar","segment_files":["000001"],
		"files":FILES,"index_stats":{"series_max_size":64,"chunk_max_size":120}}`,
	"Thanos compactor": `{"version":1,"labels":{"cluster":"eu"},"downsample":{"resolution":0},"source":"compactor","segment_files":["000001"],"files":FILES,
		"extensions":{"any":"thing"},"rewrites":[{"sources":[],"deletions_applied":[{"matchers":"{a=\"b\"}","intervals":null}]}]}`,
	"old Cortex":       `{"labels":{"__org_id__":"t1","__ingester_id__":"ingester-3"},"downsample":{"resolution":0},"source":"receive"}`,
	"Mimir ingester":   `{"version":1,"labels":{},"downsample":{"resolution":0},"source":"receive","segment_files":["000001"],"files":FILES}`,
	"Mimir compactor":  `{"version":1,"labels":{"__compactor_shard_id__":"2_of_4"},"downsample":{"resolution":0},"source":"compactor","segment_files":["000001"],"files":FILES}`,
	"Mimir late block": `{"version":1,"labels":{"__out_of_order__":"true"},"downsample":{"resolution":0},"source":"receive","files":FILES}`,
}

// placeForeign puts a block of another program into the bucket as that program would.
func placeForeign(t *testing.T, bkt objstore.Bucket, dir, thanos string) ulid.ULID {
	t.Helper()
	id := ulid.MustParse(filepath.Base(dir))
	var files []File
	for _, name := range []string{IndexFile, "chunks/000001"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{RelPath: name, SizeBytes: int64(len(b))})
		if err := bkt.Upload(t.Context(), path.Join("t1", id.String(), name), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(append(files, File{RelPath: MetaFile}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, MetaFile))
	if err != nil {
		t.Fatal(err)
	}
	if thanos != "" {
		thanos = string(bytes.ReplaceAll([]byte(thanos), []byte("FILES"), list))
		b = append(bytes.TrimSuffix(bytes.TrimSpace(b), []byte("}")), []byte(`,"thanos":`+thanos+`}`)...)
	}
	if err := bkt.Upload(t.Context(), path.Join("t1", id.String(), MetaFile), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestBlocksOfOtherProgramsAreReadInPlace(t *testing.T) {
	bkt, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store, err := NewStore(StoreDeps{Logger: quiet, Bucket: bkt, LocalBytes: 1 << 30, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	writers := map[ulid.ULID]string{}
	mint := int64(0)
	for writer, thanos := range foreign {
		writers[placeForeign(t, bkt, makeBlock(t, mint, 5), thanos)] = writer
		mint += 7_200_000
	}
	s, err := ScanBlocks(t.Context(), objstore.NewPrefixedBucket(bkt, "t1"), nil, time.Now())
	if err != nil || len(s.Index.Blocks) != len(foreign) || len(s.Corrupted) != 0 {
		t.Fatalf("%d blocks, corrupted %v, %v", len(s.Index.Blocks), s.Corrupted, err)
	}
	for _, indexed := range s.Index.Blocks {
		writer := writers[indexed.ID]
		want := IndexedBlock{}
		switch writer {
		case "Thanos sidecar":
			want.Labels = map[string]string{"cluster": "eu", "replica": "a"}
		case "Thanos compactor":
			want.Labels = map[string]string{"cluster": "eu"}
		case "Mimir compactor":
			want.CompactorShard = "2_of_4"
		case "Mimir late block":
			want.OutOfOrder = true
		}
		if indexed.CompactorShard != want.CompactorShard || indexed.OutOfOrder != want.OutOfOrder || !maps.Equal(indexed.Labels, want.Labels) {
			t.Errorf("%s: indexed as %+v", writer, indexed)
		}
		b, err := store.Open(t.Context(), "t1", indexed.ID)
		if err != nil {
			t.Errorf("%s: %v", writer, err)
			continue
		}
		set, err := b.Select(t.Context(), Selection{MinTime: -1 << 60, MaxTime: 1 << 60, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for set.Next() {
			n += int(binary.BigEndian.Uint16(set.At().Chunks[0].Data)) // as all encodings have it
		}
		if set.Err() != nil || n != 50 {
			t.Errorf("%s: %d samples, %v; want 50", writer, n, set.Err())
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
		m, err := ReadMeta(t.Context(), objstore.NewPrefixedBucket(bkt, "t1"), indexed.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := Download(t.Context(), objstore.NewPrefixedBucket(bkt, "t1"), m, filepath.Join(t.TempDir(), "b")); err != nil {
			t.Errorf("%s: %v", writer, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABucketIndexOfMimirIsRead(t *testing.T) {
	idx, err := parseBucketIndex(packed(t, `{"version":2,"blocks":[
		{"block_id":"01DTVP434PA9VFXSW2JKB3392D","min_time":1000,"max_time":2000,"segments_format":"1b6d","segments_num":3,"compactor_shard_id":"1_of_4","uploaded_at":30,
		 "source":"compactor","compaction_level":4,"out_of_order":true,"labels":{"a":"b"},"something":"new"}],
		"block_deletion_marks":[{"block_id":"01DTVP434PA9VFXSW2JKB3392D","deletion_time":40}],"updated_at":50}`))
	if err != nil || len(idx.Blocks) != 1 || idx.Blocks[0].CompactorShard != "1_of_4" || !idx.Blocks[0].OutOfOrder || len(idx.Overlapping(0, 5000)) != 0 {
		t.Errorf("%+v, %v", idx, err)
	}
}

// packed is text as a bucket index is stored.
func packed(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
