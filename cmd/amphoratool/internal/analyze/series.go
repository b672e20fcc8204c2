package analyze

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"sync"

	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

// ruleGroup is what the file of used metrics says of one rule group.
type ruleGroup struct {
	Namespace   string   `json:"namespace"`
	GroupName   string   `json:"group_name"`
	Metrics     []string `json:"metrics"`
	ParseErrors []string `json:"parse_errors"`
}

// inRules is the file that says which metrics rules use.
type inRules struct {
	MetricsUsed []string    `json:"metricsUsed"`
	RuleGroups  []ruleGroup `json:"ruleGroups"`
}

func (c *command) saveRules(set rulefiles.Set) error {
	var in inRules
	all := map[string]bool{}
	for _, name := range set.Names() {
		for _, g := range set[name].Groups {
			out := ruleGroup{Namespace: name, GroupName: g.Name, Metrics: []string{}, ParseErrors: []string{}}
			here := map[string]bool{}
			for _, r := range g.Rules {
				names, err := rulefiles.Metrics(r.Expr)
				if err != nil {
					out.ParseErrors = append(out.ParseErrors, fmt.Sprintf("%s: %v", r.Expr, err))
				}
				for _, n := range names {
					here[n], all[n] = true, true
				}
			}
			out.Metrics = append(out.Metrics, slices.Sorted(maps.Keys(here))...)
			in.RuleGroups = append(in.RuleGroups, out)
		}
	}
	in.MetricsUsed = append([]string{}, slices.Sorted(maps.Keys(all))...)
	c.Say("%d metrics in %d rule groups", len(in.MetricsUsed), len(in.RuleGroups))
	return c.save(in)
}

// jobCount is the series of one metric and job.
type jobCount struct {
	Job   string `json:"job"`
	Count int    `json:"count"`
}

// metricCount is the series of one metric.
type metricCount struct {
	Metric    string     `json:"metric"`
	Count     int        `json:"count"`
	JobCounts []jobCount `json:"job_counts"`
}

// usage is what analyze prometheus finds.
type usage struct {
	Total      int           `json:"total_active_series"`
	InUse      int           `json:"in_use_active_series"`
	Additional int           `json:"additional_active_series"`
	Used       []metricCount `json:"in_use_metric_counts"`
	Unused     []metricCount `json:"additional_metric_counts"`
	Errors     []string      `json:"errors"`
}

// used reads what a file says is used; one that does not exist says nothing.
func used(path string, into map[string]bool) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var in struct {
		MetricsUsed []string `json:"metricsUsed"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, m := range in.MetricsUsed {
		into[m] = true
	}
	return nil
}

func (c *command) analyzePrometheus(ctx context.Context) error {
	inUse := map[string]bool{}
	if err := errors.Join(used(c.grafanaMetrics, inUse), used(c.rulerFiles, inUse)); err != nil {
		return err
	}
	if err := c.server.Open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.readTimeout)
	defer cancel()
	body, err := c.server.Get(ctx, c.prefix+"/api/v1/label/__name__/values")
	if err != nil {
		return err
	}
	var names struct{ Data []string }
	if err := json.Unmarshal(body, &names); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	u := usage{Used: []metricCount{}, Unused: []metricCount{}, Errors: []string{}}
	var mu sync.Mutex // guards u
	p := c.Progress("metrics", int64(len(names.Data)))
	defer p.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.concurrency, 1))
	for _, name := range names.Data {
		g.Go(func() error {
			m, err := c.count(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			p.Add(1)
			if err != nil {
				u.Errors = append(u.Errors, fmt.Sprintf("%s: %v", name, err))
				return ctx.Err()
			}
			u.add(m, inUse[name])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	u.sort()
	c.Say("series: %d, of which %d are used and %d are not", u.Total, u.InUse, u.Additional)
	return c.save(u)
}

func (u *usage) add(m metricCount, inUse bool) {
	if m.Count == 0 {
		return // it was stored once, and is not now
	}
	u.Total += m.Count
	if inUse {
		u.InUse += m.Count
		u.Used = append(u.Used, m)
		return
	}
	u.Additional += m.Count
	u.Unused = append(u.Unused, m)
}

// sort puts what has the most series first.
func (u *usage) sort() {
	for _, list := range [][]metricCount{u.Used, u.Unused} {
		slices.SortFunc(list, func(a, b metricCount) int { return cmp.Or(b.Count-a.Count, cmp.Compare(a.Metric, b.Metric)) })
	}
	slices.Sort(u.Errors)
}

// count asks for the series of a metric by job.
func (c *command) count(ctx context.Context, name string) (metricCount, error) {
	m := metricCount{Metric: name, JobCounts: []jobCount{}}
	expr := fmt.Sprintf("count by (job) ({__name__=%q})", name)
	body, err := c.server.Get(ctx, c.prefix+"/api/v1/query?"+url.Values{"query": {expr}}.Encode())
	if err != nil {
		return m, err
	}
	var answer struct{ Data struct{ Result model.Vector } }
	if err := json.Unmarshal(body, &answer); err != nil {
		return m, fmt.Errorf("read the answer: %w", err)
	}
	for _, s := range answer.Data.Result {
		m.JobCounts = append(m.JobCounts, jobCount{string(s.Metric["job"]), int(s.Value)})
		m.Count += int(s.Value)
	}
	slices.SortFunc(m.JobCounts, func(a, b jobCount) int { return cmp.Or(b.Count-a.Count, cmp.Compare(a.Job, b.Job)) })
	return m, nil
}
