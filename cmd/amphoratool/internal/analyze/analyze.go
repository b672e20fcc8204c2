// Package analyze owns the commands that find out which metrics dashboards and rules use, and which
// stored metrics are unused.
package analyze

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rules"
)

// Names of the files through which the commands work together.
const (
	grafanaFile    = "metrics-in-grafana.json"
	rulerFile      = "metrics-in-ruler.json"
	prometheusFile = "prometheus-metrics.json"
)

// command is one invocation.
type command struct {
	*cli.Env
	server  client.Client
	ruler   rules.Remote
	grafana client.Client

	files, folders             []string
	out, prefix, key           string
	grafanaMetrics, rulerFiles string
	concurrency                int
	readTimeout                time.Duration
}

// Register adds the family `analyze`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	family := app.Command("analyze", "Find out which metrics are used, and which are not.")
	output := func(cmd *kingpin.CmdClause, name string) {
		cmd.Flag("output", "File for the result.").Default(name).StringVar(&c.out)
	}

	grafana := family.Command("grafana", "Metrics that the dashboards of a Grafana use.")
	grafana.Flag("address", "Address of the Grafana. ($GRAFANA_ADDRESS)").Default(e.First("GRAFANA_ADDRESS")).StringVar(&c.grafana.Address)
	c.key = e.First("GRAFANA_API_KEY")
	grafana.Flag("key", "Token of the Grafana, or user:password. ($GRAFANA_API_KEY)").StringVar(&c.key)
	grafana.Flag("folder-title", "Folder to look into; may repeat; all if none is given.").StringsVar(&c.folders)
	grafana.Flag("read-timeout", "How long one call may take.").Default("5m").DurationVar(&c.readTimeout)
	output(grafana, grafanaFile)
	e.Do(grafana, c.analyzeGrafana)

	boards := family.Command("dashboard", "Metrics that files of dashboards use.")
	boards.Arg("files", "Files of dashboards, as JSON.").Required().ExistingFilesVar(&c.files)
	output(boards, grafanaFile)
	e.Do(boards, c.analyzeFiles)

	ruler := family.Command("ruler", "Metrics that the rules of a tenant use.")
	c.ruler.Declare(ruler, e)
	output(ruler, rulerFile)
	e.Do(ruler, c.analyzeRuler)

	ruleFile := family.Command("rule-file", "Metrics that files of rules use.")
	ruleFile.Arg("files", "Files of rules.").Required().ExistingFilesVar(&c.files)
	output(ruleFile, rulerFile)
	e.Do(ruleFile, c.analyzeRuleFiles)

	prometheus := family.Command("prometheus", "Series by metric, and whether anything uses them, by the files of the other commands.")
	c.server.Declare(prometheus, e)
	prometheus.Flag("prometheus-http-prefix", "Prefix of the paths of Prometheus's API.").Default("/prometheus").StringVar(&c.prefix)
	prometheus.Flag("grafana-metrics-file", "What analyze grafana or dashboard wrote; need not exist.").Default(grafanaFile).StringVar(&c.grafanaMetrics)
	prometheus.Flag("ruler-metrics-file", "What analyze ruler or rule-file wrote; need not exist.").Default(rulerFile).StringVar(&c.rulerFiles)
	prometheus.Flag("concurrency", "Most queries at once.").Default(strconv.Itoa(4)).IntVar(&c.concurrency)
	prometheus.Flag("read-timeout", "How long all may take.").Default("30m").DurationVar(&c.readTimeout)
	output(prometheus, prometheusFile)
	e.Do(prometheus, c.analyzePrometheus)
}

// save writes a result.
func (c *command) save(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if c.out == "-" {
		_, err = c.Out.Write(append(data, '\n'))
		return err
	}
	return os.WriteFile(c.out, append(data, '\n'), 0o644)
}

func (c *command) analyzeFiles(context.Context) error {
	in := &inDashboards{}
	for _, name := range c.files {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := in.add(data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	in.finish()
	c.Say("%d metrics in %d dashboards", len(in.MetricsUsed), len(in.Dashboards))
	return c.save(in)
}

// pageSize is how many dashboards Grafana is asked for at a time.
const pageSize = 500

func (c *command) analyzeGrafana(ctx context.Context) error {
	header := map[string]string{}
	if c.key != "" {
		header["Authorization"] = "Bearer " + c.key
	}
	user, password, basic := strings.Cut(c.key, ":")
	if err := c.grafana.OpenFor(c.readTimeout); err != nil {
		return err
	}
	if basic {
		c.grafana.Basic(user, password)
		delete(header, "Authorization")
	}
	get := func(path string, into any) error {
		body, err := c.grafana.Do(ctx, client.Call{Method: "GET", Path: path, Header: header})
		if err != nil {
			return fmt.Errorf("ask Grafana: %w", err)
		}
		return json.Unmarshal(body, into)
	}
	in := &inDashboards{}
	for page := 1; ; page++ {
		var list []struct{ UID, URI, Title, FolderTitle string }
		if err := get(fmt.Sprintf("/api/search?type=dash-db&limit=%d&page=%d", pageSize, page), &list); err != nil {
			return err
		}
		for _, found := range list {
			if !c.wanted(found.FolderTitle) {
				continue
			}
			var one struct{ Dashboard json.RawMessage }
			if err := get("/api/dashboards/uid/"+url.PathEscape(found.UID), &one); err != nil {
				return err
			}
			if err := in.add(one.Dashboard); err != nil {
				return fmt.Errorf("dashboard %s: %w", found.Title, err)
			}
			in.Dashboards[len(in.Dashboards)-1].Slug = strings.TrimPrefix(found.URI, "db/")
		}
		if len(list) < pageSize {
			break
		}
	}
	in.finish()
	c.Say("%d metrics in %d dashboards", len(in.MetricsUsed), len(in.Dashboards))
	return c.save(in)
}

func (c *command) wanted(folder string) bool {
	for _, f := range c.folders {
		if f == folder {
			return true
		}
	}
	return len(c.folders) == 0
}

func (c *command) analyzeRuler(ctx context.Context) error {
	if err := c.ruler.Open(); err != nil {
		return err
	}
	set, err := c.ruler.List(ctx)
	if err != nil {
		return err
	}
	return c.saveRules(set)
}

func (c *command) analyzeRuleFiles(context.Context) error {
	set, err := rulefiles.Sources{Files: c.files}.Read()
	if err != nil {
		return err
	}
	return c.saveRules(set)
}
