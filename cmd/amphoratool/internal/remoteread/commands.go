package remoteread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// command is one invocation.
type command struct {
	*cli.Env
	server client.Client

	path, selector, from, to string
	limit                    size
	chunks                   bool
	timeout                  time.Duration
	format, dir              string
	blockDuration            time.Duration
}

// Register adds the family `remote-read`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("remote-read", "Read samples by remote read.")
	c.server.Declare(family, e)
	family.Flag("remote-read-path", "Path of remote read.").Default("/prometheus/api/v1/read").StringVar(&c.path)
	family.Flag("selector", "Which series.").Default("up").StringVar(&c.selector)
	family.Flag("from", "Begin: RFC 3339, or how long ago.").Default("1h").StringVar(&c.from)
	family.Flag("to", "End: RFC 3339, or how long ago; now if not given.").StringVar(&c.to)
	family.Flag("read-size-limit", "Most bytes of one answer.").Default("1GB").SetValue(&c.limit)
	family.Flag("use-chunks", "Ask for chunks as they are stored, one after the other, instead of one answer.").Default("true").BoolVar(&c.chunks)
	family.Flag("read-timeout", "How long one answer may take.").Default("10m").DurationVar(&c.timeout)

	stats := family.Command("stats", "How many series and samples there are, by metric.")
	cli.Format(stats, &c.format)
	e.Do(stats, c.stats)
	dump := family.Command("dump", "Print all samples: labels, value, milliseconds.")
	e.Do(dump, c.dump)
	export := family.Command("export", "Write all samples into blocks of a Prometheus.")
	export.Flag("tsdb-path", "Directory for the blocks.").Default("./local-tsdb").StringVar(&c.dir)
	export.Flag("block-duration", "How long a block is.").Default("24h").DurationVar(&c.blockDuration)
	e.Do(export, c.export)
}

// size is a number of bytes, with a unit or, as mimirtool has it, without.
type size units.Base2Bytes

// String is part of kingpin.Value.
func (s *size) String() string { return units.Base2Bytes(*s).String() }

// Set is part of kingpin.Value.
func (s *size) Set(text string) error {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		*s = size(n)
		return nil
	}
	n, err := units.ParseBase2Bytes(text)
	*s = size(n)
	return err
}

func (c *command) sizeLimit() int64 { return int64(c.limit) }

// span reads the times.
func (c *command) span() (from, to int64, err error) {
	now := time.Now()
	a, err := cli.Moment(c.from, now)
	if err != nil {
		return 0, 0, fmt.Errorf("--from: %w", err)
	}
	b, err := cli.Moment(c.to, now)
	if err != nil {
		return 0, 0, fmt.Errorf("--to: %w", err)
	}
	if !a.Before(b) {
		return 0, 0, errors.New("--from must be before --to")
	}
	return a.UnixMilli(), b.UnixMilli(), c.server.Open()
}

// count is what stats says of one metric.
type count struct {
	Metric  string    `json:"metric" yaml:"metric"`
	Series  int       `json:"series" yaml:"series"`
	Samples int       `json:"samples" yaml:"samples"`
	First   time.Time `json:"first" yaml:"first"`
	Last    time.Time `json:"last" yaml:"last"`
}

func (c *command) stats(ctx context.Context) error {
	from, to, err := c.span()
	if err != nil {
		return err
	}
	by := map[string]*count{}
	last := labels.EmptyLabels()
	err = c.read(ctx, from, to, func(ls labels.Labels, s sample) error {
		at := time.UnixMilli(s.t).UTC()
		x := by[ls.Get(model.MetricNameLabel)]
		if x == nil {
			x = &count{Metric: ls.Get(model.MetricNameLabel), First: at}
			by[x.Metric] = x
		}
		if !labels.Equal(last, ls) {
			last = ls.Copy()
			x.Series++
		}
		x.Samples++
		if at.Before(x.First) {
			x.First = at
		}
		if at.After(x.Last) {
			x.Last = at
		}
		return nil
	})
	if err != nil {
		return err
	}
	list := []count{}
	for _, x := range by {
		list = append(list, *x)
	}
	slices.SortFunc(list, func(a, b count) int { return b.Samples - a.Samples })
	rows := make([][]string, 0, len(list))
	for _, x := range list {
		rows = append(rows, []string{x.Metric, strconv.Itoa(x.Series), strconv.Itoa(x.Samples), x.First.Format(time.RFC3339), x.Last.Format(time.RFC3339)})
	}
	return c.Print(c.format, list, []string{"METRIC", "SERIES", "SAMPLES", "FIRST", "LAST"}, rows)
}

func (c *command) dump(ctx context.Context) error {
	from, to, err := c.span()
	if err != nil {
		return err
	}
	var line bytes.Buffer
	return c.read(ctx, from, to, func(ls labels.Labels, s sample) error {
		line.Reset()
		s.line(&line, ls)
		_, err := c.Out.Write(line.Bytes())
		return err
	})
}

// export reads and writes one block after the other, so that what is held in memory is one.
func (c *command) export(ctx context.Context) error {
	from, to, err := c.span()
	if err != nil {
		return err
	}
	if c.blockDuration < time.Minute {
		return errors.New("--block-duration must be a minute or more")
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	step := c.blockDuration.Milliseconds()
	p := c.Progress("export", to-from)
	defer p.Close()
	blocks, samples := 0, 0
	for at := from; at <= to; {
		end := min(at-at%step+step-1, to)
		n, err := c.exportBlock(ctx, at, end)
		if err != nil {
			return err
		}
		if samples += n; n > 0 {
			blocks++
		}
		p.Add(end - at + 1)
		at = end + 1
	}
	c.Say("%d samples in %d blocks written to %s", samples, blocks, c.dir)
	return nil
}

func (c *command) exportBlock(ctx context.Context, from, to int64) (n int, err error) {
	w, err := tsdb.NewBlockWriter(c.Log, c.dir, c.blockDuration.Milliseconds())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	app := w.Appender(ctx)
	err = c.read(ctx, from, to, func(ls labels.Labels, s sample) error {
		if s.t < from || s.t > to {
			return nil // a chunk may hold more than was asked for
		}
		if n++; n%5000 == 0 {
			if err := app.Commit(); err != nil {
				return err
			}
			app = w.Appender(ctx)
		}
		return add(app, ls, s)
	})
	if err != nil {
		return n, err
	}
	if err := app.Commit(); err != nil || n == 0 {
		return n, err
	}
	_, err = w.Flush(ctx)
	return n, err
}

func add(app storage.Appender, ls labels.Labels, s sample) error {
	var err error
	if s.h != nil || s.fh != nil {
		_, err = app.AppendHistogram(0, ls, s.t, s.h, s.fh)
	} else {
		_, err = app.Append(0, ls, s.t, s.v)
	}
	if err != nil {
		return fmt.Errorf("store %s at %d: %w", ls, s.t, err)
	}
	return nil
}
