package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// Prefix is where batches lie, in a directory no tenant can be named after.
	Prefix    = "__amphora_cluster/audit/"
	chainFile = "chain.json"
	// maxObjectBytes bounds a batch that is read, unpacked.
	maxObjectBytes = 64 << 20
	// The name of a batch is the time of its first record: a directory for the day, and the time of the day.
	dayLayout, clockLayout = "2006/01/02", "150405.000"
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
	name := path.Join(Prefix, at.Format(dayLayout), fmt.Sprintf("%s-%s-%08d.json.gz", at.Format(clockLayout), b.Writer, b.Number))
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	if err := l.deps.Bucket.Upload(ctx, name, &packed); err != nil {
		return fmt.Errorf("write audit records: %w", err)
	}
	l.chain.Number, l.chain.Previous = b.Number, b.Digest
	return l.chain.save()
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
