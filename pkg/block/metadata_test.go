package block

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/thanos-io/objstore"
)

func TestMetadataIsAddedToWhatOthersKnow(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	add := func(oldest int64, more ...Metadata) {
		t.Helper()
		if err := AddMetadata(t.Context(), bkt, more, time.Unix(oldest, 0)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want ...Metadata) {
		t.Helper()
		if got, err := ReadMetadata(t.Context(), bkt); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	a, b := Metadata{"a", "counter", "Help.", "", 1000}, Metadata{"b", "gauge", "", "bytes", 1000}
	want()
	add(0, b)
	add(0, a)
	want(a, b)
	a.Seen = 2000
	add(0, a)
	want(Metadata{"a", "counter", "Help.", "", 1000}, b) // not worth a write
	a.Seen = 100_000
	add(0, a)
	want(a, b)
	other := a
	other.Help = "Other."
	add(0, other)
	want(a, other, b)
	add(2000, a)
	want(a, other)
	if err := bkt.Upload(t.Context(), MetadataFile, bytes.NewReader([]byte("not gzip"))); err != nil {
		t.Fatal(err)
	}
	add(0, b)
	want(b)
	var many []Metadata
	for k := range maxMetadata + 10 {
		many = append(many, Metadata{Name: fmt.Sprint("m", k), Seen: int64(5000 + k)})
	}
	if got, _ := mergeMetadata([]Metadata{b}, many, 0); len(got) != maxMetadata || slices.Contains(got, b) {
		t.Errorf("%d entries, with the oldest: %v", len(got), slices.Contains(got, b))
	}
}

func FuzzMetadata(f *testing.F) {
	bkt := objstore.NewInMemBucket()
	_ = AddMetadata(f.Context(), bkt, []Metadata{{"a", "counter", "Help.", "s", 7}}, time.Unix(0, 0))
	f.Add(bkt.Objects()[MetadataFile])
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseMetadata(b) })
}
