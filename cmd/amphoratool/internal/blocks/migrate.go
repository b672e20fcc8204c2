package blocks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/pkg/block"
)

func (c *command) registerMigrate(app *kingpin.Application) {
	family := app.Command("migrate", "Bring what another system stored to a tenant, which needs the limit compactor_block_upload_enabled.")
	prometheus := family.Command("prometheus", "The data directory of a Prometheus, which may run.")
	c.declare(prometheus)
	prometheus.Arg("data-dir", "The directory.").Required().ExistingDirVar(&c.source)
	prometheus.Flag("head", "Also what is not in a block yet, read from the write-ahead log. Best when the Prometheus has stopped: samples that come later are in blocks of its own.").BoolVar(&c.head)
	prometheus.Flag("scratch-dir", "Where the block of --head is written.").Default(os.TempDir()).StringVar(&c.scratch)
	prometheus.Flag("dry-run", "Only say what would be uploaded.").BoolVar(&c.dry)
	c.Do(prometheus, c.migratePrometheus)

	thanos := family.Command("thanos", "A directory of blocks as Thanos has them in a bucket. Those that are downsampled or do not have the external labels are left out.")
	c.declare(thanos)
	thanos.Arg("dir", "The directory.").Required().ExistingDirVar(&c.source)
	thanos.Flag("external-label", "name=value that a block must have; may repeat.").StringsVar(&c.selector)
	thanos.Flag("dry-run", "Only say what would be uploaded.").BoolVar(&c.dry)
	c.Do(thanos, c.migrateThanos)
}

func (c *command) migratePrometheus(ctx context.Context) error {
	dirs, err := blocksIn(c.source)
	if err != nil {
		return err
	}
	if c.head && !c.dry {
		scratch, err := os.MkdirTemp(c.scratch, "amphoratool-head-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		head, err := c.cutHead(scratch)
		if err != nil {
			return err
		}
		dirs = append(dirs, head...)
	}
	return c.send(ctx, dirs)
}

// cutHead writes what only the write-ahead log has into a block below dir.
func (c *command) cutHead(dir string) (blocks []string, err error) {
	db, err := tsdb.OpenDBReadOnly(c.source, "", c.Log)
	if err != nil {
		return nil, fmt.Errorf("open the write-ahead log: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.FlushWAL(dir); err != nil {
		return nil, fmt.Errorf("cut a block from the write-ahead log: %w", err)
	}
	return blocksIn(dir)
}

func (c *command) send(ctx context.Context, dirs []string) error {
	if len(dirs) == 0 {
		return errors.New("no blocks found")
	}
	if !c.dry {
		if err := c.server.Open(); err != nil {
			return err
		}
		return c.uploadAll(ctx, dirs)
	}
	for _, dir := range dirs {
		m, err := readMeta(dir)
		if err != nil {
			return err
		}
		c.Say("%s: %s to %s, %d series, %d samples", filepath.Base(dir), stamp(m.MinTime), stamp(m.MaxTime), m.Stats.NumSeries, m.Stats.NumSamples)
	}
	return nil
}

func (c *command) migrateThanos(ctx context.Context) error {
	all, err := blocksIn(c.source)
	if err != nil {
		return err
	}
	var dirs []string
	for _, dir := range all {
		m, err := readMeta(dir)
		if err != nil {
			return err
		}
		switch why, err := c.leftOut(&m); {
		case err != nil:
			return err
		case why != "":
			c.Say("%s: left out: %s", filepath.Base(dir), why)
		default:
			dirs = append(dirs, dir)
		}
	}
	return c.send(ctx, dirs)
}

// leftOut says why a block of Thanos is not brought over, "" if it is.
func (c *command) leftOut(m *block.Meta) (string, error) {
	if m.Thanos.Downsample.Resolution > 0 {
		return "it is downsampled", nil
	}
	for _, s := range c.selector {
		name, value, err := pair(s)
		if err != nil {
			return "", err
		}
		if m.Thanos.Labels[name] != value {
			return fmt.Sprintf("its external label %s is %q", name, m.Thanos.Labels[name]), nil
		}
	}
	return "", nil
}

// pair reads name=value.
func pair(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return "", "", fmt.Errorf("%q is not name=value", s)
	}
	return name, value, nil
}

// stamp writes a time in milliseconds for people.
func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
