package app

import (
	"fmt"
	"slices"
	"strings"
)

// target is one name that -target accepts.
type target struct {
	name  string
	group []string // what the name stands for; nil: itself
	doc   string
}

// targetDocs is every name that -target accepts, in the order in which parts start.
var targetDocs = []target{
	{"all", []string{"ingester", "store-gateway", "distributor", "query-scheduler", "querier", "query-frontend", "compactor", "ruler", "alertmanager", "scraper", "control"}, "Everything in one process."},
	{"write", []string{"ingester", "distributor"}, "The write path."},
	{"read", []string{"store-gateway", "query-scheduler", "querier", "query-frontend"}, "The read path."},
	{"backend", []string{"store-gateway", "compactor", "ruler", "alertmanager", "scraper", "control"}, "What works on object storage, rules and scrapers."},
	{gatewayTarget, []string{}, "Finds out who calls and what they may do, and passes requests on. A process with the target all has one."},
	{"ingester", nil, "Keeps recent samples, cuts them into blocks and ships these."},
	{"store-gateway", nil, "Reads blocks in object storage for queriers."},
	{"distributor", nil, "Takes samples, checks them and sends each to its ingesters."},
	{"query-scheduler", nil, "Queues queries fairly until queriers fetch them."},
	{"querier", nil, "Answers PromQL from ingesters and blocks."},
	{"query-frontend", nil, "Takes queries, splits and shards them and merges answers."},
	{"compactor", nil, "Merges, splits and deletes blocks in object storage, and keeps the bucket indexes."},
	{"ruler", nil, "Evaluates recording and alerting rules."},
	{"alertmanager", nil, "Groups, silences and inhibits alerts, and notifies receivers."},
	{"scraper", nil, "Runs managed scrapers, which discover targets and collect their metrics into workspaces."},
	{"control", nil, "Serves the control plane: workspaces with their rules, definitions, tags and limits."},
	{"overrides-exporter", nil, "Exposes limits of tenants as metrics. No part of all."},
	{continuousTest, nil, "Writes series to a cluster and reads them back without end, and counts wrong answers. No part of all."},
}

// builders has what each single target needs built.
func builders() map[string]func(*App) error {
	return map[string]func(*App) error{
		"query-scheduler": (*App).buildScheduler,
		"query-frontend":  (*App).buildFrontend,

		"ingester":      (*App).buildIngester,
		"store-gateway": (*App).buildStoreGateway,
		"ruler":         (*App).buildRuler,
		"distributor":   func(a *App) error { _, err := a.distributor(); return err },
		"alertmanager":  (*App).buildAlertmanager,
		"querier":       (*App).buildQuerier,
		"compactor":     func(a *App) error { _, err := a.compactor(); return err },
		"scraper":       (*App).buildScraper,
		"control":       func(a *App) error { _, err := a.control(); return err },

		continuousTest:       (*App).buildContinuousTest,
		"overrides-exporter": func(a *App) error { return a.reg.Register(a.limits.Exporter(a.cfg.Exporter)) },
	}
}

// Targets lists the names of -target with what each is for.
func Targets() string {
	var b strings.Builder
	for _, t := range targetDocs {
		fmt.Fprintf(&b, "  %-14s %s\n", t.name, t.doc)
	}
	return b.String()
}

// resolve returns the single targets that names stand for, in the table's order.
func resolve(names []string) ([]target, error) {
	wanted := map[string]bool{}
	for _, n := range names {
		i := slices.IndexFunc(targetDocs, func(t target) bool { return t.name == n })
		if i < 0 {
			return nil, fmt.Errorf("unknown target %q; known are %s", n, targetNames())
		}
		if g := targetDocs[i].group; g != nil {
			for _, m := range g {
				wanted[m] = true
			}
		} else {
			wanted[n] = true
		}
	}
	var out []target
	for _, t := range targetDocs {
		if wanted[t.name] {
			out = append(out, t)
		}
	}
	if len(out) == 0 && !slices.Contains(names, gatewayTarget) {
		return nil, fmt.Errorf("no target is named; known are %s", targetNames())
	}
	return out, nil
}

// runs says whether this process has the single target name.
func (c *Config) runs(name string) bool {
	ts, err := resolve(c.Target)
	return err == nil && slices.ContainsFunc(ts, func(t target) bool { return t.name == name })
}

// runsEverything says whether this process has every target that all stands for.
func (c *Config) runsEverything() bool {
	all, _ := resolve([]string{"all"})
	return !slices.ContainsFunc(all, func(t target) bool { return !c.runs(t.name) })
}
