package block

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// MetadataFile lies below a tenant and says what its metrics are, also of those that nobody sends any
// more but whose samples are in blocks.
const MetadataFile = "metadata.json.gz"

const (
	// maxMetadata bounds the entries of a tenant; those that were seen last stay.
	maxMetadata = 100_000
	// maxMetadataBytes bounds the file in memory, packed and unpacked.
	maxMetadataBytes = 128 << 20
	// metadataFresh is how old the note may be of when an entry was seen last.
	metadataFresh = 6 * time.Hour
)

// Metadata is what a sender said of a metric.
type Metadata struct {
	Name string `json:"name"`
	Type string `json:"type,omitempty"`
	Help string `json:"help,omitempty"`
	Unit string `json:"unit,omitempty"`
	Seen int64  `json:"seen"` // about when it was said last, Unix seconds
}

// ReadMetadata returns what is known of a tenant's metrics, by name. bkt is the tenant's.
func ReadMetadata(ctx context.Context, bkt objstore.BucketReader) ([]Metadata, error) {
	packed, err := readObject(ctx, bkt, MetadataFile, maxMetadataBytes)
	if err != nil {
		if errs.KindOf(err) == errs.NotFound {
			return nil, nil
		}
		return nil, err
	}
	out, err := parseMetadata(packed)
	if err != nil {
		return nil, errs.New(errs.Internal, "%s is corrupted: %w", MetadataFile, err)
	}
	return out, nil
}

func parseMetadata(packed []byte) (out []Metadata, err error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxMetadataBytes+1))
	if err != nil {
		return nil, err
	}
	if len(plain) > maxMetadataBytes {
		return nil, errs.New(errs.Internal, "it is larger than %d bytes", maxMetadataBytes)
	}
	return out, json.Unmarshal(plain, &out)
}

// AddMetadata brings the file up to date with what an ingester knows, and drops what was not seen since
// oldest. Of two that write at the same time one may lose, and says it again with its next blocks. A
// file that cannot be read is begun anew.
func AddMetadata(ctx context.Context, bkt objstore.Bucket, more []Metadata, oldest time.Time) error {
	old, err := ReadMetadata(ctx, bkt)
	if err != nil && errs.KindOf(err) != errs.Internal {
		return err
	}
	merged, changed := mergeMetadata(old, more, oldest.Unix())
	if !changed && err == nil {
		return nil
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if err := json.NewEncoder(z).Encode(merged); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := bkt.Upload(ctx, MetadataFile, &out); err != nil {
		return storeError(ctx, bkt, err, "write %s", MetadataFile)
	}
	return nil
}

// mergeMetadata returns both without repetition, by name, and whether that is worth to be written.
func mergeMetadata(old, more []Metadata, oldest int64) (out []Metadata, changed bool) {
	seen := make(map[Metadata]int64, len(old)+len(more))
	for _, m := range old {
		at := m.Seen
		if at < oldest {
			changed = true
			continue
		}
		m.Seen = 0
		seen[m] = max(seen[m], at)
	}
	for _, m := range more {
		at := m.Seen
		m.Seen = 0
		if before, ok := seen[m]; !ok || at-before >= int64(metadataFresh/time.Second) {
			changed = true
		}
		seen[m] = max(seen[m], at)
	}
	out = make([]Metadata, 0, len(seen))
	for m, at := range seen {
		m.Seen = at
		out = append(out, m)
	}
	if len(out) > maxMetadata {
		slices.SortFunc(out, func(a, b Metadata) int { return cmp.Or(cmp.Compare(b.Seen, a.Seen), byName(a, b)) })
		out = out[:maxMetadata]
	}
	slices.SortFunc(out, byName)
	return out, changed
}

func byName(a, b Metadata) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
}
