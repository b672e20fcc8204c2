// Package exporting owns the command that exports the samples of a tenant to a file, window by
// window, so that an interrupted export can be resumed.
package exporting

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// The forms of an export.
const (
	lines    = "lines"
	tabular  = "csv"
	chunked  = "native"
	columnar = "parquet"
)

// tries is how often a part is asked for that broke off, and firstPause how long the first wait between
// two of them is; each is twice as long as the one before.
const (
	tries      = 6
	firstPause = time.Second
)

// command is one invocation.
type command struct {
	*cli.Env
	server client.Client

	prefix, selector, from, to string
	form, columns, file        string
	window                     time.Duration
	omit                       bool
	pause                      time.Duration
}

// Register adds the command `export`.
func Register(app *kingpin.Application, e *cli.Env) { register(app, e, firstPause) }

func register(app *kingpin.Application, e *cli.Env, pause time.Duration) {
	c := &command{Env: e, pause: pause}
	cmd := app.Command("export", "Write samples into a file: as lines of JSON, which /api/v1/import and VictoriaMetrics take, as CSV, as chunks, or into a directory of Parquet files. If the file is there with its .state, it goes on where it ended.")
	c.server.Declare(cmd, e)
	cmd.Flag("prometheus-http-prefix", "Prefix of the Prometheus API.").Default("/prometheus").StringVar(&c.prefix)
	cmd.Flag("selector", "Which series.").Required().StringVar(&c.selector)
	cmd.Flag("from", "Begin: RFC 3339, or how long ago.").Default("1h").StringVar(&c.from)
	cmd.Flag("to", "End: RFC 3339, or how long ago; now if not given.").StringVar(&c.to)
	cmd.Flag("form", "lines, csv, native or parquet.").Default(lines).EnumVar(&c.form, lines, tabular, chunked, columnar)
	cmd.Flag("columns", "Columns of CSV: labels, __value__ and __timestamp__ with :unix_s, :unix_ms, :unix_ns or :rfc3339.").Default("__name__,__value__,__timestamp__:rfc3339").StringVar(&c.columns)
	cmd.Flag("omit-histograms", "Leave native histograms out, for which CSV has no place.").BoolVar(&c.omit)
	cmd.Flag("window", "How much time is asked for at once: what the server holds in memory for it grows with that.").Default("6h").DurationVar(&c.window)
	cmd.Flag("output", "File to write; of Parquet the directory, which gets a file for each window.").Short('o').Required().StringVar(&c.file)
	e.Do(cmd, c.run)
}

// state is what a file has. It stands in a file beside it.
type state struct {
	Selector string `json:"selector"`
	Form     string `json:"form"`
	Columns  string `json:"columns,omitempty"`
	From     int64  `json:"from"` // milliseconds
	To       int64  `json:"to"`
	Next     int64  `json:"next"` // where the window begins that is not whole
	// After is the labels of the last series that the file has of that window, which ends at Until, and Bytes
	// what of the file counts.
	After string `json:"after,omitempty"`
	Until int64  `json:"until"`
	Bytes int64  `json:"bytes"`
}

func (c *command) run(ctx context.Context) error {
	if c.window < time.Second {
		return errors.New("--window must be a second or more")
	}
	if err := c.server.Open(); err != nil {
		return err
	}
	to, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }() // what counts was made safe before
	s, err := c.begin(to)
	if err != nil {
		return err
	}
	p := c.Progress("export", s.To-s.From)
	defer p.Close()
	p.Add(s.Next - s.From)
	for s.Next <= s.To {
		end := min(s.Next+c.window.Milliseconds()-1, s.To)
		if s.After != "" { // of the window that it was begun with
			end = s.Until
		}
		s.Until = end
		if err := c.insist(ctx, to, &s, end); err != nil {
			return fmt.Errorf("%w; what is written counts, the same command goes on", err)
		}
		p.Add(end - s.Next + 1)
		s.Next, s.After = end+1, ""
		if err := c.save(to, &s); err != nil {
			return err
		}
	}
	c.Say("%d bytes written to %s", s.Bytes, c.file)
	return nil
}

// begin returns where the export ends that is there.
func (c *command) begin(to place) (state, error) {
	var s state
	raw, err := os.ReadFile(c.stateFile())
	switch {
	case errors.Is(err, os.ErrNotExist):
		empty, err := to.empty()
		if err != nil {
			return s, err
		}
		if !empty {
			return s, fmt.Errorf("%s is there, and nothing says what it has: delete it, or choose another name", c.file)
		}
		return c.fresh()
	case err != nil:
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", c.stateFile(), err)
	}
	if s.Selector != c.selector || s.Form != c.form || s.Columns != c.written() {
		return s, fmt.Errorf("%s has %s of %s: choose another file for others", c.file, s.Form, s.Selector)
	}
	return s, to.settle(&s)
}

// written is the columns, if there are columns.
func (c *command) written() string {
	if c.form == tabular {
		return c.columns
	}
	return ""
}

func (c *command) fresh() (state, error) {
	now := time.Now()
	from, err := cli.Moment(c.from, now)
	if err != nil {
		return state{}, fmt.Errorf("--from: %w", err)
	}
	to, err := cli.Moment(c.to, now)
	if err != nil {
		return state{}, fmt.Errorf("--to: %w", err)
	}
	if !from.Before(to) {
		return state{}, errors.New("--from must be before --to")
	}
	return state{Selector: c.selector, Form: c.form, Columns: c.written(), From: from.UnixMilli(), To: to.UnixMilli(), Next: from.UnixMilli()}, nil
}

func (c *command) stateFile() string { return c.file + ".state" }

// save makes what counts safe, and then says so.
func (c *command) save(to place, s *state) error {
	if err := to.settle(s); err != nil {
		return err
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	next := c.stateFile() + ".new"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.stateFile())
}

// insist asks for a window again if it breaks off, from the last series on that is whole.
func (c *command) insist(ctx context.Context, to place, s *state, end int64) error {
	pause := c.pause
	for try := 1; ; try++ {
		err := c.part(ctx, to, s, end)
		if err == nil {
			return nil
		}
		if err := c.save(to, s); err != nil {
			return err
		}
		var status *client.StatusError
		if refused := errors.As(err, &status) && status.Status < http.StatusInternalServerError && status.Status != http.StatusTooManyRequests; refused || errors.Is(err, errTold) || try == tries || ctx.Err() != nil {
			return err
		}
		c.Log.Warn("a part broke off, it is asked for again", "try", try, "err", err)
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// part appends a window.
func (c *command) part(ctx context.Context, to place, s *state, end int64) error {
	form := url.Values{"match[]": {c.selector}, "start": {moment(s.Next)}, "end": {moment(end)}}
	path := c.prefix + "/api/v1/export"
	switch c.form {
	case tabular:
		path += "/csv"
		form.Set("format", c.columns)
	case chunked, columnar:
		path += "/native"
	}
	if c.omit {
		form.Set("histograms", "omit")
	}
	if s.After != "" {
		form.Set("after", s.After)
	}
	body, err := c.server.Stream(ctx, client.Call{Method: http.MethodGet, Path: path + "?" + form.Encode()})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return to.take(body, s, end)
}

// moment is how the API takes a time in milliseconds.
func moment(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// errTold is an error that the server wrote behind what it had sent; it would again.
var errTold = errors.New("the server ended the export")

// tail remembers the end of what is written, where the server says why it broke off.
type tail struct {
	w   io.Writer
	end []byte
}

// tailBytes is how long a message of the server is at most.
const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.end = append(t.end, p[max(0, len(p)-tailBytes):]...)
	t.end = t.end[max(0, len(t.end)-tailBytes):]
	return t.w.Write(p)
}

// told is err, or what the server said.
func (t *tail) told(err error) error {
	if _, text, ok := bytes.Cut(t.end, []byte("\n# error: ")); ok {
		return fmt.Errorf("%w: %s", errTold, bytes.TrimSpace(text))
	}
	return err
}
