package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// Prefix is where batches lie, in a directory no tenant can be named after.
	Prefix    = "__amphora_cluster/audit/"
	chainFile = "chain.json"
	// maxObjectBytes bounds a batch that is read, unpacked.
	maxObjectBytes = 64 << 20
	defaultLimit   = 1000
	// maxQueryDays bounds a search, since each day is a listing.
	maxQueryDays = 92
)

// batch is what one object holds.
type batch struct {
	Records []json.RawMessage `json:"Records"`
	Writer  string            `json:"writer"`
	Number  int64             `json:"number"` // of the writer, from 1
	// Previous is the digest of the writer's batch before, Digest that of Previous, Writer, Number and Records.
	Previous  string `json:"previousDigest"`
	Digest    string `json:"digest"`
	Signature string `json:"signature,omitempty"`
}

// digest binds the records to the batch before.
func (b *batch) digest() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%s\n%d\n", b.Previous, b.Writer, b.Number) // a hash does not fail
	for _, r := range b.Records {
		_, _ = h.Write(r)
		_, _ = h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// chain is where a writer stands. It lies beside the records, so that a process goes on with it.
type chain struct {
	Writer   string `json:"writer"`
	Number   int64  `json:"number"`
	Previous string `json:"previous"`

	file string
}

func openChain(dir string) (chain, error) {
	c := chain{file: filepath.Join(dir, chainFile)}
	data, err := os.ReadFile(c.file)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || c.Writer == "" { // a new directory is a new writer
		var id [8]byte
		_, _ = rand.Read(id[:]) // it never fails
		c.Writer, c.Number, c.Previous = hex.EncodeToString(id[:]), 0, ""
		return c, c.save()
	}
	return c, nil
}

func (c *chain) save() error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the chain of audit records: %w", err)
	}
	if err := os.WriteFile(c.file+".new", data, 0o600); err != nil {
		return errs.New(errs.Invalid, "write the chain of audit records: %w", err)
	}
	if err := os.Rename(c.file+".new", c.file); err != nil {
		return errs.New(errs.Invalid, "write the chain of audit records: %w", err)
	}
	return nil
}

// put writes one batch. If the process ends between the object and the chain, the batch is written once
// more under the same number and the same name, as its name follows from what it holds.
func (l *Log) put(ctx context.Context, records []json.RawMessage) error {
	b := batch{Records: records, Writer: l.chain.Writer, Number: l.chain.Number + 1, Previous: l.chain.Previous}
	b.Digest = b.digest()
	if l.deps.Sign != nil {
		b.Signature = hex.EncodeToString(l.deps.Sign(b.Digest))
	}
	var first Record
	if err := json.Unmarshal(records[0], &first); err != nil {
		return fmt.Errorf("read an audit record: %w", err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if err := json.NewEncoder(z).Encode(b); err != nil {
		return fmt.Errorf("encode audit records: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("encode audit records: %w", err)
	}
	at := first.EventTime.UTC()
	name := path.Join(Prefix, at.Format("2006/01/02"), fmt.Sprintf("%s-%s-%08d.json.gz", at.Format("150405.000"), b.Writer, b.Number))
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	if err := l.deps.Bucket.Upload(ctx, name, &packed); err != nil {
		return fmt.Errorf("write audit records: %w", err)
	}
	l.chain.Number, l.chain.Previous = b.Number, b.Digest
	return l.chain.save()
}

// Found is the answer to a query.
type Found struct {
	Records []Record `json:"Records"`
	// More says that the limit cut the answer.
	More bool `json:"more,omitempty"`
	// Damaged names objects whose records are not those that were written, and gaps between them.
	Damaged []string `json:"damaged,omitempty"`

	seen map[string]bool // by event: a batch may be on the disk and in object storage
}

// Find reads records, the oldest first, from object storage and from the disk of this process, and
// checks the chain of every batch that it reads. Errors: Invalid, Unavailable.
func (l *Log) Find(ctx context.Context, q Query) (Found, error) {
	if q.To.IsZero() {
		q.To = l.deps.Now()
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-24 * time.Hour)
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	if q.To.Sub(q.From) > maxQueryDays*24*time.Hour || q.To.Before(q.From) {
		return Found{}, errs.New(errs.Invalid, "the range must end after it begins, and within %d days", maxQueryDays)
	}
	f := Found{Records: []Record{}, seen: map[string]bool{}}
	last := map[string]batch{}
	// The name of a batch is the time of its first record, which may be some way before the last.
	for day := q.From.UTC().Add(-time.Hour).Truncate(24 * time.Hour); !day.After(q.To); day = day.Add(24 * time.Hour) {
		err := l.deps.Bucket.Iter(ctx, path.Join(Prefix, day.Format("2006/01/02"))+"/", func(name string) error {
			return l.readBatch(ctx, name, &q, &f, last)
		})
		if errors.Is(err, errEnough) {
			return f, nil
		}
		if err != nil {
			return Found{}, errs.New(errs.Unavailable, "read audit records: %w", err)
		}
	}
	l.findLocal(&q, &f)
	return f, nil
}

// errEnough ends a listing.
var errEnough = errors.New("limit reached")

func (f *Found) add(q *Query, text json.RawMessage) error {
	var r Record
	if json.Unmarshal(text, &r) != nil || !q.selects(&r) || f.seen[r.EventID] {
		return nil
	}
	f.seen[r.EventID] = true
	if len(f.Records) >= q.Limit {
		f.More = true
		return errEnough
	}
	f.Records = append(f.Records, r)
	return nil
}

func (l *Log) readBatch(ctx context.Context, name string, q *Query, f *Found, last map[string]batch) error {
	if !strings.HasSuffix(name, ".json.gz") {
		return nil
	}
	b, err := l.get(ctx, name)
	if err != nil {
		f.Damaged = append(f.Damaged, name+": "+err.Error())
		return nil
	}
	before, seen := last[b.Writer]
	switch {
	case b.Digest != b.digest():
		f.Damaged = append(f.Damaged, name+": records were changed")
	case l.deps.Sign != nil && b.Signature != "" && !hmac.Equal([]byte(b.Signature), []byte(hex.EncodeToString(l.deps.Sign(b.Digest)))):
		f.Damaged = append(f.Damaged, name+": signature is wrong")
	case seen && (b.Number != before.Number+1 || b.Previous != before.Digest):
		f.Damaged = append(f.Damaged, fmt.Sprintf("%s: batches between %d and %d are missing or were changed", name, before.Number, b.Number))
	}
	last[b.Writer] = batch{Number: b.Number, Digest: b.Digest}
	for _, text := range b.Records {
		if err := f.add(q, text); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) get(ctx context.Context, name string) (batch, error) {
	var b batch
	r, err := l.deps.Bucket.Get(ctx, name)
	if err != nil {
		return b, err
	}
	defer func() { _ = r.Close() }()
	z, err := gzip.NewReader(r)
	if err != nil {
		return b, err
	}
	return b, json.NewDecoder(io.LimitReader(z, maxObjectBytes)).Decode(&b)
}

// findLocal adds what is not in object storage yet.
func (l *Log) findLocal(q *Query, f *Found) {
	for _, name := range append(l.waiting(), filepath.Join(l.cfg.Dir, currentFile)) {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it is in object storage by now
		}
		for _, text := range lines(data) {
			if err := f.add(q, text); errors.Is(err, errEnough) {
				return
			}
		}
	}
}
