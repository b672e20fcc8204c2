package buckets

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"path"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/thanos-io/objstore"
)

func (c *command) registerValidation(app *kingpin.Application) {
	v := app.Command("bucket-validation", "Find out whether object storage does what is needed of it: write, list, read, ask for parts, and delete.")
	var at location
	at.declare(v, c.Env, "", "the bucket")
	words := v.Flag("bucket-config", "The flags of the bucket as one text, as '-backend=s3 -s3.endpoint=127.0.0.1:9000'.").String()
	v.Flag("object-count", "Objects of one run.").Default("100").IntVar(&c.objects)
	v.Flag("test-runs", "Runs.").Default("1").IntVar(&c.runs)
	v.Flag("prefix", "Prefix of the objects, which are deleted in the end.").Default("amphoratool-validation").StringVar(&c.prefix)
	v.Flag("report-every", "Say how far it is every so many objects.").Default("100").Int()
	v.Flag("retries-on-error", "The drivers of the server try again by themselves, as they do there.").Default("3").IntVar(&c.validationRetries)
	c.Do(v, func(ctx context.Context) error {
		if err := at.words(*words); err != nil {
			return err
		}
		c.at = at
		c.at.made = true
		return c.open(c.validate)(ctx)
	})
}

// objectBytes is the size of an object of the validation.
const objectBytes = 4096

func (c *command) validate(ctx context.Context) error {
	for run := range max(c.runs, 1) {
		bkt := objstore.NewPrefixedBucket(c.bkt, path.Join(c.prefix, strconv.Itoa(run)))
		if err := c.validateOnce(ctx, bkt); err != nil {
			return fmt.Errorf("run %d: %w", run+1, err)
		}
	}
	c.Say("%d runs of %d objects: the storage does what is needed", max(c.runs, 1), c.objects)
	return nil
}

func (c *command) validateOnce(ctx context.Context, bkt objstore.Bucket) error {
	content := make([]byte, objectBytes)
	_, _ = rand.Read(content)
	p := c.Progress("validate", int64(c.objects))
	defer p.Close()
	want := map[string]bool{}
	for i := range c.objects {
		name := fmt.Sprintf("dir-%d/object-%06d", i%3, i)
		want[name] = true
		if err := bkt.Upload(ctx, name, bytes.NewReader(content)); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := readBack(ctx, bkt, name, content); err != nil {
			return err
		}
		p.Add(1)
	}
	err := bkt.Iter(ctx, "", func(name string) error {
		delete(want, name)
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil || len(want) > 0 {
		return fmt.Errorf("%d objects are missing from the list: %w", len(want), err)
	}
	for i := range c.objects {
		name := fmt.Sprintf("dir-%d/object-%06d", i%3, i)
		if err := bkt.Delete(ctx, name); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
		if there, err := bkt.Exists(ctx, name); err != nil || there {
			return fmt.Errorf("%s is there after it was deleted: %w", name, err)
		}
	}
	return nil
}

// readBack reads an object whole and a part of it.
func readBack(ctx context.Context, bkt objstore.Bucket, name string, content []byte) error {
	const from, n = 1000, 100
	whole, err := bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = whole.Close() }()
	if got, err := io.ReadAll(io.LimitReader(whole, objectBytes+1)); err != nil || !bytes.Equal(got, content) {
		return fmt.Errorf("%s is not what was written: %d bytes, %w", name, len(got), err)
	}
	part, err := bkt.GetRange(ctx, name, from, n)
	if err != nil {
		return fmt.Errorf("read a part of %s: %w", name, err)
	}
	defer func() { _ = part.Close() }()
	if got, err := io.ReadAll(io.LimitReader(part, objectBytes+1)); err != nil || !bytes.Equal(got, content[from:from+n]) {
		return fmt.Errorf("a part of %s is not what was written: %d bytes, %w", name, len(got), err)
	}
	if a, err := bkt.Attributes(ctx, name); err != nil || a.Size != objectBytes {
		return fmt.Errorf("%s has %d bytes, %d were written: %w", name, a.Size, objectBytes, err)
	}
	return nil
}
