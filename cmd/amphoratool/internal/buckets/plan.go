package buckets

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// registerPlans adds what reads a bucket as compactors and queriers do.
func (c *command) registerPlans(family *kingpin.CmdClause) {
	plan := family.Command("plan", "Jobs that compactors would do now, by the settings and limits of the file, or by the defaults.")
	cli.Format(plan, &c.format)
	plan.Flag("tenant", "Tenant; may repeat; all if not given.").StringsVar(&c.tenants)
	c.Do(plan, c.open(c.plan))

	index := family.Command("index", "Blocks that a query of a span of time reads, by the tenant's bucket index as it is.")
	cli.Format(index, &c.format)
	index.Arg("tenant", "The tenant.").Required().StringVar(&c.tenantID)
	index.Flag("from", "Beginning of the query, RFC 3339.").StringVar(&c.from)
	index.Flag("until", "End of the query, RFC 3339.").StringVar(&c.until)
	c.Do(index, c.open(c.index))
}

// job is what plan says of a job.
type job struct {
	Tenant string    `json:"tenant" yaml:"tenant"`
	Stage  string    `json:"stage" yaml:"stage"`
	Shard  string    `json:"shard,omitempty" yaml:"shard,omitempty"`
	From   time.Time `json:"from" yaml:"from"`
	Until  time.Time `json:"until" yaml:"until"`
	Bytes  int64     `json:"bytes" yaml:"bytes"`
	Blocks []string  `json:"blocks" yaml:"blocks"`
}

func (c *command) plan(ctx context.Context) error {
	ids, err := c.chosen(ctx)
	if err != nil {
		return err
	}
	whole, err := c.at.server()
	if err != nil {
		return err
	}
	of := overridesOf(whole, c.Env)
	views := map[tenant.ID]limits.View{}
	for _, id := range ids {
		if views[tenant.ID(id)], err = of(tenant.ID(id)); err != nil {
			return err
		}
	}
	planner, err := app.CompactionPlanner(whole, c.Log, c.bkt, func(id tenant.ID) limits.View { return views[id] })
	if err != nil {
		return err
	}
	all := []job{}
	var rows [][]string
	for _, id := range ids {
		jobs, err := planner.PlannedJobs(ctx, tenant.ID(id))
		if err != nil {
			return fmt.Errorf("tenant %s: %w", id, err)
		}
		for i := range jobs {
			j := &jobs[i]
			x := job{Tenant: id, Stage: j.Stage, Shard: j.Shard, From: j.MinTime, Until: j.MaxTime, Bytes: j.Bytes, Blocks: j.Blocks}
			all = append(all, x)
			rows = append(rows, []string{id, x.Stage, x.Shard, x.From.Format(time.RFC3339), x.Until.Format(time.RFC3339), strconv.FormatInt(x.Bytes, 10), strconv.Itoa(len(x.Blocks))})
		}
	}
	return c.Print(c.format, all, []string{"TENANT", "STAGE", "SHARD", "FROM", "UNTIL", "BYTES", "BLOCKS"}, rows)
}

// indexed is what index says.
type indexed struct {
	Updated time.Time `json:"updated" yaml:"updated"`
	Blocks  []listed  `json:"blocks" yaml:"blocks"`
}

func (c *command) index(ctx context.Context) error {
	if _, err := tenant.Parse(c.tenantID); err != nil {
		return err
	}
	from, until, err := c.span()
	if err != nil {
		return err
	}
	idx, err := block.ReadBucketIndex(ctx, own(c.bkt, c.tenantID))
	if err != nil {
		return err
	}
	out := indexed{Updated: time.Unix(idx.UpdatedAt, 0).UTC(), Blocks: []listed{}}
	var rows [][]string
	for _, b := range idx.Overlapping(from, until) {
		x := listed{Tenant: c.tenantID, Block: b.ID.String(), From: time.UnixMilli(b.MinTime).UTC(), Until: time.UnixMilli(b.MaxTime).UTC(), Level: b.CompactionLevel, Shard: b.CompactorShard, Bytes: b.SizeBytes}
		out.Blocks = append(out.Blocks, x)
		rows = append(rows, []string{x.Block, x.From.Format(time.RFC3339), x.Until.Format(time.RFC3339), strconv.Itoa(x.Level), x.Shard, strconv.FormatInt(x.Bytes, 10)})
	}
	if c.format == cli.Table {
		_, _ = fmt.Fprintf(c.Err, "the index is of %s and has %d blocks, %d of them marked for deletion\n", out.Updated.Format(time.RFC3339), len(idx.Blocks), len(idx.DeletionMarks))
	}
	return c.Print(c.format, out, []string{"BLOCK", "FROM", "UNTIL", "LEVEL", "SHARD", "BYTES"}, rows)
}
