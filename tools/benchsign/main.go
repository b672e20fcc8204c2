// Command benchsign measures what authentication adds to a push: processor time and latency of pushes
// that are signed, that carry a password, and that go to a process without authentication, by turns
// in one run on one machine. Linux only; it needs the Go tool to read profiles.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

func main() { harness.BenchMain("benchsign", run) }

// bench is one run of the command.
type bench struct {
	out     io.Writer
	dir     string
	binary  string
	samples int           // of a push
	clients int           // that push at the same time
	turn    time.Duration // how long one way pushes
	turns   int           // of each way
	pushed  int           // so far, for the times of samples
}

// most is the share of the processor time of a push that its signature may take.
const most = 15.0

func run(ctx context.Context, args []string, out io.Writer) error {
	b := &bench{out: out}
	f := flag.NewFlagSet("benchsign", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&b.dir, "dir", "data/bench-sign", "where the processes keep their data; emptied before and removed after")
	f.StringVar(&b.binary, "binary", "", "the amphora to measure; empty: build it")
	f.IntVar(&b.samples, "samples", 2000, "samples of a push")
	f.IntVar(&b.clients, "clients", 2, "clients that push at the same time")
	f.DurationVar(&b.turn, "turn", 5*time.Second, "how long each way pushes before the next one does; whole seconds")
	f.IntVar(&b.turns, "turns", 4, "turns of each way, beside one that is not measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if b.turn < time.Second || b.turns < 1 || b.samples < 1 || b.clients < 1 {
		return errors.New("there must be turns of a second or more, samples and clients")
	}
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, b.binary, err = harness.BenchDir(ctx, b.dir, b.binary); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	ways, stop, err := b.start(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	for n := range b.turns + 1 {
		for i := range ways {
			if err := b.take(ctx, ways[(i+n)%len(ways)], n > 0); err != nil {
				return err
			}
		}
	}
	return b.report(ctx, ways)
}
