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
