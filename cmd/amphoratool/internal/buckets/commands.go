package buckets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// command is one invocation.
type command struct {
	*cli.Env
	at, to location

	format, tenantID  string
	tenants, ids      []string
	from, until       string
	mark, details     string
	deep, undo, dry   bool
	scratch           string
	concurrency       int
	objects, runs     int
	prefix            string
	bkt               objstore.InstrumentedBucket
	validationRetries int
}

// Register adds the family `bucket`, and `bucket-validation`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("bucket", "Look into object storage, and work on blocks there.")
	c.at.declare(family, e, "", "the bucket")

	tenants := family.Command("tenants", "Tenants that have blocks.")
	cli.Format(tenants, &c.format)
	e.Do(tenants, c.open(c.listTenants))

	ls := family.Command("ls", "Blocks of a tenant, or of all.")
	cli.Format(ls, &c.format)
	c.declareBlocks(ls)
	e.Do(ls, c.open(c.ls))

	inspect := family.Command("inspect", "Meta file, marks and objects of one block.")
	inspect.Arg("tenant", "Its tenant.").Required().StringVar(&c.tenantID)
	inspect.Arg("block", "Its id.").Required().StringsVar(&c.ids)
	e.Do(inspect, c.open(c.inspect))

	verify := family.Command("verify", "Say which blocks are not whole, and where the bucket index differs from the bucket.")
	c.declareBlocks(verify)
	verify.Flag("deep", "Also download each block and check its index and chunks.").BoolVar(&c.deep)
	verify.Flag("scratch-dir", "Where to download blocks to; the system's temporary directory if not given.").StringVar(&c.scratch)
	e.Do(verify, c.open(c.verify))

	copyTo := family.Command("copy", "Copy blocks to another bucket. Blocks that are there already are left out.")
	c.declareBlocks(copyTo)
	c.to.declare(copyTo, e, "to.", "the other bucket")
	copyTo.Flag("concurrency", "Most objects copied at once.").Default("4").IntVar(&c.concurrency)
	copyTo.Flag("dry-run", "Only say what would be copied.").BoolVar(&c.dry)
	e.Do(copyTo, c.open(c.copy))

	mark := family.Command("mark", "Mark blocks: for deletion, which the compactor does after its delay, or to be left out of compaction.")
	mark.Arg("tenant", "Their tenant.").Required().StringVar(&c.tenantID)
	mark.Arg("block", "Their ids.").Required().StringsVar(&c.ids)
	mark.Flag("type", "deletion or no-compact.").Required().EnumVar(&c.mark, "deletion", "no-compact")
	mark.Flag("details", "Why, for people.").StringVar(&c.details)
	mark.Flag("remove", "Take the mark away.").BoolVar(&c.undo)
	mark.Flag("dry-run", "Only say what would be marked.").BoolVar(&c.dry)
	e.Do(mark, c.open(c.markAll))

	undelete := family.Command("undelete", "Take deletion marks away: of the blocks named, or of all of a tenant.")
	undelete.Arg("tenant", "Their tenant.").Required().StringVar(&c.tenantID)
	undelete.Arg("block", "Their ids; all that are marked if none is given.").StringsVar(&c.ids)
	undelete.Flag("dry-run", "Only say what would be done.").BoolVar(&c.dry)
	e.Do(undelete, c.open(c.undelete))
	c.registerPlans(family)
	c.registerValidation(app)
}

func (c *command) declareBlocks(cmd *kingpin.CmdClause) {
	cmd.Flag("tenant", "Tenant; may repeat; all if not given.").StringsVar(&c.tenants)
	cmd.Flag("from", "Only blocks with samples at or after this time, RFC 3339.").StringVar(&c.from)
	cmd.Flag("until", "Only blocks with samples before this time, RFC 3339.").StringVar(&c.until)
}

func (c *command) open(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if c.bkt, err = c.at.open(ctx, c.Env); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.bkt.Close()) }()
		return do(ctx)
	}
}

// own returns the part of a bucket that is the tenant's.
func own(bkt objstore.Bucket, id string) objstore.Bucket { return objstore.NewPrefixedBucket(bkt, id) }

// chosen returns the tenants that were asked for.
func (c *command) chosen(ctx context.Context) ([]string, error) {
	if len(c.tenants) > 0 {
		for _, t := range c.tenants {
			if _, err := tenant.Parse(t); err != nil {
				return nil, err
			}
		}
		return c.tenants, nil
	}
	ids, err := block.Tenants(ctx, c.bkt)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out, nil
}

// span reads --from and --until, in milliseconds.
func (c *command) span() (from, until int64, err error) {
	until = int64(1) << 62
	read := func(text string, into *int64) error {
		if text == "" {
			return nil
		}
		t, err := time.Parse(time.RFC3339, text)
		*into = t.UnixMilli()
		return err
	}
	return from, until, errors.Join(read(c.from, &from), read(c.until, &until))
}

func (c *command) listTenants(ctx context.Context) error {
	ids, err := c.chosen(ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, len(ids))
	for i, id := range ids {
		rows[i] = []string{id}
	}
	return c.Print(c.format, ids, []string{"TENANT"}, rows)
}

// listed is what ls says of a block.
type listed struct {
	Tenant    string    `json:"tenant" yaml:"tenant"`
	Block     string    `json:"block" yaml:"block"`
	From      time.Time `json:"from" yaml:"from"`
	Until     time.Time `json:"until" yaml:"until"`
	Level     int       `json:"level" yaml:"level"`
	Shard     string    `json:"shard,omitempty" yaml:"shard,omitempty"`
	Bytes     int64     `json:"bytes" yaml:"bytes"`
	Deletion  bool      `json:"marked_for_deletion,omitempty" yaml:"marked_for_deletion,omitempty"`
	NoCompact string    `json:"no_compact,omitempty" yaml:"no_compact,omitempty"`
}

func (c *command) ls(ctx context.Context) error {
	var all []listed
	err := c.each(ctx, func(id string, s *block.Scan, blocks []block.IndexedBlock) error {
		aside, err := block.NoCompacts(ctx, own(c.bkt, id))
		if err != nil {
			return err
		}
		for _, b := range blocks {
			x := listed{Tenant: id, Block: b.ID.String(), From: time.UnixMilli(b.MinTime).UTC(), Until: time.UnixMilli(b.MaxTime).UTC(), Level: b.CompactionLevel, Shard: b.CompactorShard, Bytes: b.SizeBytes}
			x.Deletion = slices.ContainsFunc(s.Index.DeletionMarks, func(m block.IndexedMark) bool { return m.ID == b.ID })
			if i := slices.IndexFunc(aside, func(n block.NoCompact) bool { return n.ID == b.ID }); i >= 0 {
				x.NoCompact = aside[i].Reason
			}
			all = append(all, x)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(all))
	for _, x := range all {
		marks := x.NoCompact
		if x.Deletion {
			marks += " deletion"
		}
		rows = append(rows, []string{x.Tenant, x.Block, x.From.Format(time.RFC3339), x.Until.Format(time.RFC3339), strconv.Itoa(x.Level), x.Shard, strconv.FormatInt(x.Bytes, 10), marks})
	}
	return c.Print(c.format, all, []string{"TENANT", "BLOCK", "FROM", "UNTIL", "LEVEL", "SHARD", "BYTES", "MARKS"}, rows)
}

// each calls do with the blocks of every chosen tenant that are in the span, the oldest first.
func (c *command) each(ctx context.Context, do func(id string, s *block.Scan, blocks []block.IndexedBlock) error) error {
	from, until, err := c.span()
	if err != nil {
		return err
	}
	ids, err := c.chosen(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		s, err := block.ScanBlocks(ctx, own(c.bkt, id), nil, time.Now())
		if err != nil {
			return fmt.Errorf("tenant %s: %w", id, err)
		}
		var in []block.IndexedBlock
		for _, b := range s.Index.Blocks {
			if b.MinTime < until && b.MaxTime > from {
				in = append(in, b)
			}
		}
		slices.SortFunc(in, func(a, b block.IndexedBlock) int {
			return int(min(max(a.MinTime-b.MinTime, -1), 1))
		})
		if err := do(id, s, in); err != nil {
			return fmt.Errorf("tenant %s: %w", id, err)
		}
	}
	return nil
}

// blockIDs reads the ids.
func (c *command) blockIDs() ([]ulid.ULID, error) {
	if _, err := tenant.Parse(c.tenantID); err != nil {
		return nil, err
	}
	out := make([]ulid.ULID, 0, len(c.ids))
	for _, text := range c.ids {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no id of a block", text)
		}
		out = append(out, id)
	}
	return out, nil
}
