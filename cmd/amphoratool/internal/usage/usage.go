// Package usage owns the command that shows which stored metrics and labels nobody asks for, and what drops them.
package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// command is one invocation.
type command struct {
	*cli.Env
	server  client.Client
	prefix  string
	format  string
	drop    string
	days    int
	limit   int
	all     bool
	labels  bool
	metrics []string
}

// Register adds the command `usage`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	cmd := app.Command("usage", "Metrics and labels that queries, rules and dashboards did not ask for, the largest first.")
	c.server.Declare(cmd, e)
	client.Prefix(cmd, e, &c.prefix)
	cmd.Flag("days", "How many days without a query make a metric unused.").Default("30").IntVar(&c.days)
	cmd.Flag("limit", "Most metrics, and most labels.").Default("100").IntVar(&c.limit)
	cmd.Flag("all", "Show what is asked for, too.").BoolVar(&c.all)
	cmd.Flag("labels", "Show labels instead of metrics.").BoolVar(&c.labels)
	cmd.Flag("drop", "Print YAML that drops the metrics instead: prometheus, otelcol or overrides.").EnumVar(&c.drop, "prometheus", "otelcol", "overrides")
	cmd.Flag("metric", "Metric to drop; may repeat. Without it, those that would be shown as unused.").StringsVar(&c.metrics)
	cli.Format(cmd, &c.format)
	e.Do(cmd, c.run)
}

// entry is a metric or label of a report.
type entry struct {
	Name   string `json:"name" yaml:"name"`
	Series int    `json:"series" yaml:"series"`
	Values int    `json:"values,omitempty" yaml:"values,omitempty"`
	Unused bool   `json:"unused" yaml:"unused"`
	Last   string `json:"last_asked,omitempty" yaml:"last_asked,omitempty"`

	Rule      string `json:"last_rule,omitempty" yaml:"last_rule,omitempty"`
	Dashboard string `json:"last_dashboard,omitempty" yaml:"last_dashboard,omitempty"`
	AdHoc     string `json:"last_ad_hoc,omitempty" yaml:"last_ad_hoc,omitempty"`
}

// report is what the server answers.
type report struct {
	Data struct {
		Days          int    `json:"days"`
		ObservedSince string `json:"observed_since"`
		ObservedDays  int    `json:"observed_days"`
		Incomplete    string `json:"incomplete"`
		Totals        struct {
			Metrics       int `json:"metrics"`
			UnusedMetrics int `json:"unused_metrics"`
			Series        int `json:"series"`
			UnusedSeries  int `json:"unused_series"`
		} `json:"totals"`
		Metrics []entry `json:"metrics"`
		Labels  []entry `json:"labels"`
	} `json:"data"`
}

func (c *command) run(ctx context.Context) error {
	if err := c.server.Open(); err != nil {
		return err
	}
	if c.drop != "" && len(c.metrics) > 0 {
		return c.dropRules(ctx, c.metrics)
	}
	ask := url.Values{"days": {strconv.Itoa(c.days)}, "limit": {strconv.Itoa(c.limit)}, "unused": {strconv.FormatBool(!c.all || c.drop != "")}}
	body, err := c.server.Get(ctx, c.prefix+"/api/v1/usage/metrics?"+ask.Encode())
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	c.tell(&r)
	if c.drop != "" {
		if len(r.Data.Metrics) == 0 {
			c.Log.Info("no metric is unused")
			return nil
		}
		var names []string
		for _, m := range r.Data.Metrics {
			names = append(names, m.Name)
		}
		return c.dropRules(ctx, names)
	}
	list, heads := r.Data.Metrics, []string{"METRIC", "SERIES", "LAST", "RULE", "DASHBOARD", "AD HOC"}
	if c.labels {
		list, heads[0] = r.Data.Labels, "LABEL"
	}
	var rows [][]string
	for _, m := range list {
		rows = append(rows, []string{m.Name, strconv.Itoa(m.Series), never(m.Last), never(m.Rule), never(m.Dashboard), never(m.AdHoc)})
	}
	return c.Print(c.format, list, heads, rows)
}

func never(day string) string {
	if day == "" {
		return "never"
	}
	return day
}

// tell says what the report rests on, beside the output, which may be read by a program.
func (c *command) tell(r *report) {
	d := &r.Data
	if d.ObservedDays < d.Days {
		c.Log.Warn("what is asked for was not observed on all days", "days", d.Days, "observed", d.ObservedDays, "since", d.ObservedSince)
	}
	if d.Incomplete != "" {
		c.Log.Warn("more names were asked for than are remembered, or usage insights were off for a time, so that nothing is called unused", "last", d.Incomplete)
	}
	c.Log.Info("usage", "metrics", d.Totals.Metrics, "unused", d.Totals.UnusedMetrics, "series", d.Totals.Series, "in_unused_metrics", d.Totals.UnusedSeries)
}

func (c *command) dropRules(ctx context.Context, metrics []string) error {
	form := url.Values{"format": {c.drop}, "metric[]": metrics}
	body, err := c.server.Do(ctx, client.Call{Method: http.MethodPost, Path: c.prefix + "/api/v1/usage/drop", Body: []byte(form.Encode()), Type: "application/x-www-form-urlencoded"})
	if err != nil {
		return err
	}
	_, err = c.Out.Write(body)
	return err
}
