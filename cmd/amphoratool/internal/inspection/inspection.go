// Package inspection owns the commands that inspect blocks and write-ahead logs on disk.
package inspection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/wal"
)

// command is one invocation.
type command struct {
	*cli.Env
	format, dir string
	limit       int
}

// Register adds the family `inspect`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("inspect", "Look into blocks and write-ahead logs on disk.")
	block := family.Command("block", "Check every series and chunk of a block.")
	block.Arg("dir", "Directory of the block.").Required().ExistingDirVar(&c.dir)
	e.Do(block, c.block)
	labelsOf := family.Command("index", "Labels of a block with how many values and series they have.")
	labelsOf.Arg("dir", "Directory of the block.").Required().ExistingDirVar(&c.dir)
	labelsOf.Flag("limit", "Most labels.").Default("50").IntVar(&c.limit)
	cli.Format(labelsOf, &c.format)
	e.Do(labelsOf, c.index)
	log := family.Command("wal", "Segments of an ingester's write-ahead log, and whether they are whole. Nothing is changed.")
	log.Arg("dir", "Directory of the log: wal below ingester.data_dir.").Required().ExistingDirVar(&c.dir)
	cli.Format(log, &c.format)
	e.Do(log, c.wal)
}

func (c *command) block(ctx context.Context) error {
	meta, err := tsdb.OpenBlock(c.Log, c.dir, nil, nil)
	if err != nil {
		return err
	}
	m := meta.Meta()
	if err := meta.Close(); err != nil {
		return err
	}
	c.Say("%s: series %d, samples %d, chunks %d, level %d", m.ULID, m.Stats.NumSeries, m.Stats.NumSamples, m.Stats.NumChunks, m.Compaction.Level)
	if err := Check(ctx, c.dir); err != nil {
		return err
	}
	c.Say("every series and chunk can be read")
	return nil
}

// Check reads every series and every chunk of the block in dir, and returns what is wrong first.
func Check(ctx context.Context, dir string) (err error) {
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), nil)
	if err != nil {
		return fmt.Errorf("its chunks: %w", err)
	}
	defer func() { err = errors.Join(err, cr.Close()) }()
	name, value := index.AllPostingsKey()
	all, err := ir.Postings(ctx, name, value)
	if err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	var b labels.ScratchBuilder
	var list []chunks.Meta
	last := labels.EmptyLabels()
	for first := true; all.Next(); first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := ir.Series(all.At(), &b, &list); err != nil {
			return fmt.Errorf("series %d: %w", all.At(), err)
		}
		ls := b.Labels()
		if !first && labels.Compare(last, ls) >= 0 {
			return fmt.Errorf("series %s does not come after %s", ls, last)
		}
		last = ls.Copy()
		if err := checkChunks(cr, list); err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
	}
	return all.Err()
}

func checkChunks(cr *chunks.Reader, list []chunks.Meta) error {
	for i, m := range list {
		if i > 0 && m.MinTime <= list[i-1].MaxTime {
			return fmt.Errorf("chunk %d overlaps the one before", i)
		}
		c, _, err := cr.ChunkOrIterable(m)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		n := 0
		it := c.Iterator(nil)
		for it.Next() != 0 {
			n++
		}
		if it.Err() != nil || n != c.NumSamples() {
			return fmt.Errorf("chunk %d has %d of %d samples: %w", i, n, c.NumSamples(), it.Err())
		}
	}
	return nil
}

// labelCount is what index says of one label.
type labelCount struct {
	Label  string `json:"label" yaml:"label"`
	Values int    `json:"values" yaml:"values"`
	Series int    `json:"series" yaml:"series"`
}

func (c *command) index(ctx context.Context) (err error) {
	ir, err := index.NewFileReader(filepath.Join(c.dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	names, err := ir.LabelNames(ctx)
	if err != nil {
		return err
	}
	var list []labelCount
	for _, name := range names {
		values, err := ir.SortedLabelValues(ctx, name, nil)
		if err != nil {
			return err
		}
		x := labelCount{Label: name, Values: len(values)}
		p, err := ir.Postings(ctx, name, values...)
		if err != nil {
			return err
		}
		for p.Next() {
			x.Series++
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b labelCount) int { return cmp.Or(b.Values-a.Values, cmp.Compare(a.Label, b.Label)) })
	list = list[:min(len(list), max(c.limit, 0))]
	rows := make([][]string, 0, len(list))
	for _, x := range list {
		rows = append(rows, []string{x.Label, strconv.Itoa(x.Values), strconv.Itoa(x.Series)})
	}
	return c.Print(c.format, list, []string{"LABEL", "VALUES", "SERIES"}, rows)
}

func (c *command) wal(context.Context) error {
	files, err := wal.Examine(c.dir)
	if err != nil {
		return err
	}
	bad := 0
	rows := make([][]string, 0, len(files))
	for _, f := range files {
		state := "whole"
		if f.Torn {
			state = "its end is torn, or being written"
		}
		if f.Damage != "" {
			bad++
			state = f.Damage
		}
		rows = append(rows, []string{f.Name, strconv.FormatInt(f.Bytes, 10), strconv.Itoa(f.Blocks), state})
	}
	if err := c.Print(c.format, files, []string{"FILE", "BYTES", "BLOCKS", "STATE"}, rows); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d files are damaged", bad)
	}
	return nil
}
