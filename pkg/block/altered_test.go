package block

import (
	"encoding/json"
	"errors"
	"io"
	"path"
	"testing"
	"time"

	"github.com/thanos-io/objstore"
)

func TestTooManyAlterationsAreJoinedAndNoneIsLost(t *testing.T) {
	b := IndexedBlock{MinTime: 0, MaxTime: 10}
	idx := &BucketIndex{Blocks: []IndexedBlock{b}}
	for i := range 3 * mostAlterations {
		idx.Blocks[0].MinTime, idx.Blocks[0].MaxTime = int64(10*i), int64(10*i+10)
		idx.Alter(b.ID, time.Unix(int64(i), 0))
	}
	if len(idx.Altered) != mostAlterations {
		t.Fatalf("%d alterations, want %d", len(idx.Altered), mostAlterations)
	}
	for i := range int64(3 * mostAlterations) {
		told := false
		for _, a := range idx.Altered {
			told = told || a.MinTime <= 10*i && 10*i+10 <= a.MaxTime && i <= a.At
		}
		if !told {
			t.Fatalf("the alteration at %d is not told", i)
		}
	}
}

func TestThatABlockWasUploadedIsToldAfterItWasCompacted(t *testing.T) {
	const hour = 3600
	now := time.Unix(100*hour, 0)
	at := func(n byte, from string, uploaded int64) IndexedBlock {
		return IndexedBlock{ID: [16]byte{n}, MinTime: int64(n) * 10, MaxTime: int64(n)*10 + 10, Source: from, UploadedAt: uploaded}
	}
	early, recent, ours, still := at(1, "upload", 10*hour), at(2, "upload", 90*hour), at(3, source, 90*hour), at(4, "upload", 90*hour)
	old := &BucketIndex{Blocks: []IndexedBlock{early, recent, ours, still}}
	for _, b := range old.Blocks[:3] {
		old.DeletionMarks = append(old.DeletionMarks, IndexedMark{ID: b.ID})
	}
	s := &Scan{Index: &BucketIndex{UpdatedAt: now.Unix(), Blocks: []IndexedBlock{still}}}
	s.NoteAlterations(old, 48*time.Hour)
	want := Alteration{MinTime: recent.MinTime, MaxTime: recent.MaxTime, At: recent.UploadedAt}
	if len(s.Index.Altered) != 1 || s.Index.Altered[0] != want {
		t.Errorf("told are %+v, want %+v alone", s.Index.Altered, want)
	}
	again := &Scan{Index: &BucketIndex{UpdatedAt: now.Unix() + hour, Blocks: []IndexedBlock{still}}}
	again.NoteAlterations(s.Index, 48*time.Hour)
	if len(again.Index.Altered) != 1 || again.Index.Altered[0] != want {
		t.Errorf("an hour later told are %+v", again.Index.Altered)
	}
	last := &Scan{Index: &BucketIndex{UpdatedAt: now.Unix() + 48*hour, Blocks: []IndexedBlock{still}}}
	last.NoteAlterations(again.Index, 48*time.Hour)
	if len(last.Index.Altered) != 0 {
		t.Errorf("for ever told are %+v", last.Index.Altered)
	}
}

func TestACopyOfTheMetaFileOutlivesTheBlock(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, makeBlock(t, 0, 5))
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	want, err := ReadMeta(t.Context(), tb, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Delete(t.Context(), tb, id); err != nil {
		t.Fatal(err)
	}
	r, err := tb.Get(t.Context(), path.Join("debug/metas", id.String()+".json"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	var got Meta
	if err := json.Unmarshal(text, &got); err != nil || got.ULID != id || got.Stats != want.Stats || len(got.Thanos.Files) != len(want.Thanos.Files) {
		t.Errorf("the copy says %+v, %v; want %+v", got, err, want)
	}
	if s, err := ScanBlocks(t.Context(), tb, nil, time.Now()); err != nil || len(s.Index.Blocks)+len(s.Partial)+len(s.Corrupted) != 0 {
		t.Errorf("the copy is taken for a block: %+v, %v", s, err)
	}
}
