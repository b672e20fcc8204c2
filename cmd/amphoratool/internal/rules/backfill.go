package rules

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/blocks"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

const (
	// blockSpan is how much time a block has. Blocks of rules begin at its multiples, as those of ingesters do.
	blockSpan = 2 * time.Hour
	// mostPoints bounds the points of one range query, as servers do.
	mostPoints = 11_000
	// backfillLag is what is left to the rulers: younger samples may still be in the heads of ingesters, which no block may
	// overlap.
	backfillLag = 3 * time.Hour
)

// backfill is the past of recording rules to be recorded.
type backfill struct {
	start, end string
	interval   time.Duration
	output     string
	most       time.Duration
	dry        bool
	pause      time.Duration
}

func (c *command) registerBackfill(family *kingpin.CmdClause) {
	b := &c.backfill
	cmd := family.Command("backfill", "Record the past of recording rules: their expressions are evaluated over a time by the server, and what comes out is uploaded as blocks. The tenant needs the limit compactor_block_upload_enabled. Rules read what is stored: for one that reads another, begin again when the other's blocks are there.")
	cmd.Arg("rule-files", "Files of rules; those of the server if none is given.").ExistingFilesVar(&c.sources.Files)
	cmd.Flag("start", "Where to begin: RFC 3339, seconds since 1970, or how long ago, such as 30d.").Required().StringVar(&b.start)
	cmd.Flag("end", "Where to end; what is younger than three hours is left to the rulers.").Default("3h").StringVar(&b.end)
	cmd.Flag("namespace", "Only this namespace.").StringVar(&c.namespace)
	cmd.Flag("group", "Only groups of this name.").StringVar(&c.group)
	cmd.Flag("eval-interval", "Interval of groups that name none.").Default("1m").DurationVar(&b.interval)
	cmd.Flag("output-dir", "Keep the blocks in this directory, and do not upload them.").StringVar(&b.output)
	cmd.Flag("max-time", "The longest time that is done at once.").Default("8784h").DurationVar(&b.most)
	cmd.Flag("dry-run", "Only say what would be evaluated.").BoolVar(&b.dry)
	cmd.Flag("sleep-time", "Time between looks at a block that the server checks.").Default("20s").DurationVar(&b.pause)
	c.Do(cmd, c.record)
}

// task is a recording rule to be evaluated.
type task struct {
	name   string
	expr   string
	every  time.Duration
	labels labels.Labels
}

// span is the time of one block.
type span struct{ from, to time.Time } // to is not in it

func (c *command) record(ctx context.Context) error {
	now := time.Now()
	start, err := instant(c.backfill.start, now)
	if err != nil {
		return fmt.Errorf("--start: %w", err)
	}
	end, err := instant(c.backfill.end, now)
	if err != nil {
		return fmt.Errorf("--end: %w", err)
	}
	switch {
	case end.After(now.Add(-backfillLag)):
		return fmt.Errorf("--end: %s is not three hours ago; what is younger is the rulers'", end.Format(time.RFC3339))
	case !start.Before(end):
		return errors.New("--end is not after --start")
	case end.Sub(start) > c.backfill.most:
		return fmt.Errorf("%s are longer than --max-time", end.Sub(start))
	case c.backfill.interval < time.Second:
		return errors.New("--eval-interval must be a second or more")
	}
	if err := c.remote.Open(); err != nil {
		return err
	}
	tasks, err := c.tasks(ctx)
	if err != nil {
		return err
	}
	spans := cut(start, end)
	if c.backfill.dry {
		for _, t := range tasks {
			c.Say("%s: %s every %s", t.name, t.expr, t.every)
		}
		c.Say("%d rules, %d blocks, from %s to %s", len(tasks), len(spans), start.Format(time.RFC3339), end.Format(time.RFC3339))
		return nil
	}
	dir := c.backfill.output
	if dir == "" {
		if dir, err = os.MkdirTemp("", "amphoratool-rules-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	made, err := c.evaluate(ctx, dir, tasks, spans)
	if err != nil || c.backfill.output != "" {
		return err
	}
	c.Say("%d blocks uploaded or there already", made)
	return nil
}

// instant reads a time.
func instant(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	if ago, err := model.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(ago)).UTC(), nil
	}
	if s, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(s, 0).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time", text)
}

// tasks are the recording rules of the files, or of the server.
func (c *command) tasks(ctx context.Context) ([]task, error) {
	set, err := c.sources.Read()
	if len(c.sources.Files) == 0 {
		set, err = c.remote.List(ctx)
	}
	if err != nil {
		return nil, err
	}
	var out []task
	for _, name := range set.Names() {
		for _, g := range set[name].Groups {
			if c.namespace != "" && name != c.namespace || c.group != "" && g.Name != c.group {
				continue
			}
			if out, err = c.ofGroup(out, name, &g); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no recording rules found")
	}
	return out, nil
}

func (c *command) ofGroup(out []task, namespace string, g *rulefiles.Group) ([]task, error) {
	every := cmp.Or(time.Duration(g.Interval), c.backfill.interval)
	for _, r := range g.Rules {
		switch {
		case r.Record == "":
		case len(g.SourceTenants) > 0:
			return nil, fmt.Errorf("%s/%s reads other tenants; such rules have no backfill", namespace, g.Name)
		default:
			out = append(out, task{r.Record, r.Expr, every, rules.FromMaps(g.Labels, r.Labels)})
		}
	}
	return out, nil
}

// cut cuts a time at the beginnings of blocks.
func cut(start, end time.Time) (out []span) {
	for from := start; from.Before(end); {
		to := from.Truncate(blockSpan).Add(blockSpan)
		if to.After(end) {
			to = end
		}
		out = append(out, span{from, to})
		from = to
	}
	return out
}

// evaluate makes the blocks one after the other, and uploads each, unless they are to be kept. What was done
// is there already when the command is begun again: a block's name follows from what it holds.
func (c *command) evaluate(ctx context.Context, dir string, tasks []task, spans []span) (made int, err error) {
	p := c.Progress("rules", int64(len(tasks)*len(spans)))
	defer p.Close()
	for _, s := range spans {
		path, err := c.blockOf(ctx, dir, tasks, s, func() { p.Add(1) })
		if err != nil {
			return made, fmt.Errorf("from %s: %w", s.from.Format(time.RFC3339), err)
		}
		if path == "" {
			continue
		}
		made++
		if c.backfill.output != "" {
			c.Say("%s: from %s to %s", path, s.from.Format(time.RFC3339), s.to.Format(time.RFC3339))
			continue
		}
		if err := blocks.Upload(ctx, c.Env, c.remote.Client, c.backfill.pause, []string{path}); err != nil {
			return made, err
		}
		if err := os.RemoveAll(path); err != nil {
			return made, err
		}
	}
	return made, nil
}

// blockOf writes the block of a time. The path is empty if no rule had a value in it.
func (c *command) blockOf(ctx context.Context, dir string, tasks []task, s span, done func()) (path string, err error) {
	w, err := tsdb.NewBlockWriter(c.Log, dir, 2*blockSpan.Milliseconds())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	samples := 0
	for _, t := range tasks {
		n, err := c.evaluateOne(ctx, w, &t, s)
		if err != nil {
			return "", fmt.Errorf("rule %s: %w", t.name, err)
		}
		samples += n
		done()
	}
	if samples == 0 {
		return "", nil
	}
	id, err := w.Flush(ctx)
	if err != nil {
		return "", err
	}
	return name(dir, id, s)
}

// evaluateOne stores what a rule would have recorded in a time. It returns how many samples.
func (c *command) evaluateOne(ctx context.Context, w *tsdb.BlockWriter, t *task, s span) (n int, err error) {
	app := w.Appender(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, app.Rollback())
		}
	}()
	at := s.from.Truncate(t.every)
	if at.Before(s.from) {
		at = at.Add(t.every)
	}
	for at.Before(s.to) {
		last := at.Add(min(s.to.Sub(at)-1, (mostPoints-1)*t.every).Truncate(t.every))
		m, err := c.ask(ctx, t, at, last)
		if err != nil {
			return n, err
		}
		for i := range m {
			k, err := store(app, t, &m[i])
			if err != nil {
				return n, err
			}
			n += k
		}
		at = last.Add(t.every)
	}
	return n, app.Commit()
}

// store writes what the expression of a rule gave as what the rule records.
func store(app storage.Appender, t *task, s *promql.Series) (n int, err error) {
	b := labels.NewBuilder(s.Metric)
	b.Set(model.MetricNameLabel, t.name)
	t.labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	ls := b.Labels()
	for _, p := range s.Floats {
		if _, err := app.Append(0, ls, p.T, p.F); err != nil {
			return n, fmt.Errorf("%s: %w", ls, err)
		}
		n++
	}
	for _, p := range s.Histograms {
		if _, err := app.AppendHistogram(0, ls, p.T, nil, p.H); err != nil {
			return n, fmt.Errorf("%s: %w", ls, err)
		}
		n++
	}
	return n, nil
}

// ask evaluates a rule's expression over a time.
func (c *command) ask(ctx context.Context, t *task, from, to time.Time) (promql.Matrix, error) {
	seconds := func(x time.Time) string { return strconv.FormatFloat(float64(x.UnixMilli())/1000, 'f', -1, 64) }
	q := url.Values{"query": {t.expr}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {strconv.FormatFloat(t.every.Seconds(), 'f', -1, 64)}}
	body, kind, err := c.remote.Typed(ctx, client.Call{Method: http.MethodGet, Path: c.remote.prefix + "/api/v1/query_range?" + q.Encode(),
		Header: map[string]string{"Accept": work.ExactType + ", application/json;q=0.5"}})
	if err != nil {
		return nil, err
	}
	if kind != work.ExactType {
		return fromJSON(body)
	}
	v, err := work.ReadExact(body)
	if err != nil {
		return nil, err
	}
	m, ok := v.(promql.Matrix)
	if !ok {
		return nil, errors.New("the answer is no matrix")
	}
	return m, nil
}

// fromJSON reads the answer of a server that knows JSON alone.
func fromJSON(body []byte) (promql.Matrix, error) {
	var answer struct {
		Data struct {
			ResultType string       `json:"resultType"`
			Result     model.Matrix `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if answer.Data.ResultType != "matrix" {
		return nil, fmt.Errorf("the answer is a %s", answer.Data.ResultType)
	}
	var out promql.Matrix
	for _, series := range answer.Data.Result {
		if len(series.Histograms) > 0 {
			return nil, errors.New("it has native histograms, which this server tells as text that is not exact; it has no backfill")
		}
		b := labels.NewBuilder(labels.EmptyLabels())
		for k, v := range series.Metric {
			b.Set(string(k), string(v))
		}
		s := promql.Series{Metric: b.Labels()}
		for _, v := range series.Values {
			s.Floats = append(s.Floats, promql.FPoint{T: int64(v.Timestamp), F: float64(v.Value)})
		}
		out = append(out, s)
	}
	return out, nil
}

// name gives a block a name that follows from what it holds.
func name(dir string, old ulid.ULID, s span) (string, error) {
	from := filepath.Join(dir, old.String())
	sum := sha256.New()
	var files []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != block.MetaFile && d.Name() != "tombstones" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	for _, path := range files {
		if err := add(sum, path); err != nil {
			return "", err
		}
	}
	var id ulid.ULID
	if err := id.SetTime(uint64(s.to.UnixMilli())); err != nil { //nolint:gosec // After 1970.
		return "", err
	}
	if err := id.SetEntropy(sum.Sum(nil)[:10]); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(from, block.MetaFile))
	if err != nil {
		return "", err
	}
	meta := map[string]any{}
	if err := json.Unmarshal(text, &meta); err != nil {
		return "", err
	}
	meta["ulid"] = id.String()
	if compaction, ok := meta["compaction"].(map[string]any); ok {
		compaction["sources"] = []string{id.String()}
	}
	if text, err = json.MarshalIndent(meta, "", "\t"); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(from, block.MetaFile), text, 0o600); err != nil {
		return "", err
	}
	to := filepath.Join(dir, id.String())
	if err := os.RemoveAll(to); err != nil { // it holds the same
		return "", err
	}
	return to, os.Rename(from, to)
}

func add(to io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(to, f)
	return err
}
