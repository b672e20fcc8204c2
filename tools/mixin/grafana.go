package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// board is a dashboard as the tables have it.
type board struct {
	name, title string
	rows        []row
}

type row struct {
	title  string
	panels []panel
}

// panel is one graph.
type panel struct {
	title, unit, doc string
	queries          []query
	stacked          bool
}

type query struct{ expr, legend string }

// graph makes a panel of one query.
func graph(title, unit, expr, legend string) panel {
	return panel{title: title, unit: unit, queries: []query{{expr, legend}}}
}

// and adds a query.
func (p panel) and(expr, legend string) panel {
	p.queries = append(p.queries[:len(p.queries):len(p.queries)], query{expr, legend})
	return p
}

// stack draws the series on top of each other.
func (p panel) stack() panel { p.stacked = true; return p }

// says adds what a reader should know.
func (p panel) says(doc string) panel { p.doc = doc; return p }

// job is the selector of a component, whatever the workload is called that runs it.
func job(components ...string) string {
	return `cluster=~"$cluster", job=~"($namespace)/(` + strings.Join(append(components, "all", "amphora"), "|") + `)"`
}

// Components as the dashboards see them: the workload of their own, and the role that has them.
func writers() string   { return job("distributor", "write") }
func keepers() string   { return job("ingester.*", "write.*") }
func readers() string   { return job("query-frontend", "read") }
func queriers() string  { return job("querier", "read") }
func queues() string    { return job("query-scheduler", "read") }
func gateways() string  { return job("store-gateway.*", "read", "backend") }
func compactor() string { return job("compactor", "backend") }
func rulers() string    { return job("ruler", "backend") }
func alerters() string  { return job("alertmanager", "backend") }
func doors() string     { return job("gateway") }
func controls() string  { return job("control", "backend") }
func every() string     { return `cluster=~"$cluster", job=~"($namespace)/.+"` }

// rate, total and quantile are the expressions that panels repeat.
func rate(metric, selector, by string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s{%s}[$__rate_interval]))", by, metric, selector)
}

func total(metric, selector, by string) string {
	return fmt.Sprintf("sum by (%s) (%s{%s})", by, metric, selector)
}

func quantile(q, metric, selector string) string {
	return fmt.Sprintf("histogram_quantile(%s, sum by (le) (rate(%s_bucket{%s}[$__rate_interval])))", q, metric, selector)
}

// latency draws a histogram of seconds.
func latency(title, metric, selector string) panel {
	return graph(title, "s", quantile("0.99", metric, selector), "99 %").
		and(quantile("0.5", metric, selector), "50 %").
		and(fmt.Sprintf("sum(rate(%[1]s_sum{%[2]s}[$__rate_interval])) / sum(rate(%[1]s_count{%[2]s}[$__rate_interval]))", metric, selector), "mean")
}

// routes are requests and their times by status.
func routes(title, selector, matching string) []panel {
	sel := selector + `, route=~"` + matching + `"`
	return []panel{
		graph(title+": requests", "reqps", fmt.Sprintf(`sum by (status_code) (rate(amphora_request_duration_seconds_count{%s}[$__rate_interval]))`, sel), "{{status_code}}").stack(),
		latency(title+": time", "amphora_request_duration_seconds", sel),
	}
}

// json writes the dashboard as Grafana imports it.
func (b board) json() ([]byte, error) {
	variable := func(name, query string, multi bool) map[string]any {
		return map[string]any{
			"name": name, "label": name, "type": "query", "datasource": datasource(), "refresh": 2, "sort": 1,
			"query": map[string]any{"query": query, "refId": name}, "includeAll": multi, "multi": multi, "allValue": ".*",
		}
	}
	out := map[string]any{
		"title": "Amphora / " + b.title, "uid": "amphora-" + b.name, "tags": []string{"amphora"}, "editable": true, "schemaVersion": 39,
		"time": map[string]string{"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "utc", "graphTooltip": 1, "panels": b.panels(),
		"links": []map[string]any{{"type": "dashboards", "tags": []string{"amphora"}, "asDropdown": true, "title": "Amphora", "includeVars": true, "keepTime": true}},
		"templating": map[string]any{"list": []map[string]any{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
			variable("cluster", "label_values(amphora_build_info, cluster)", true),
			variable("namespace", `label_values(amphora_build_info{cluster=~"$cluster"}, namespace)`, true),
		}},
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(out)
	return buf.Bytes(), err
}

func datasource() map[string]string {
	return map[string]string{"type": "prometheus", "uid": "${datasource}"}
}

// The grid of Grafana is 24 wide; three panels stand in a line.
const (
	panelWidth  = 8
	panelHeight = 7
	perLine     = 3
)

func (b board) panels() []map[string]any {
	var out []map[string]any
	id, y := 0, 0
	for _, r := range b.rows {
		id++
		out = append(out, map[string]any{"id": id, "type": "row", "title": r.title, "collapsed": false, "gridPos": grid(0, y, perLine*panelWidth, 1), "panels": []any{}})
		y++
		for i, p := range r.panels {
			id++
			out = append(out, p.json(id, i%perLine*panelWidth, y+i/perLine*panelHeight))
		}
		y += (len(r.panels) + perLine - 1) / perLine * panelHeight
	}
	return out
}

func grid(x, y, w, h int) map[string]int { return map[string]int{"x": x, "y": y, "w": w, "h": h} }

func (p panel) json(id, x, y int) map[string]any {
	var targets []map[string]any
	for i, q := range p.queries {
		targets = append(targets, map[string]any{"refId": string(rune('A' + i)), "expr": q.expr, "legendFormat": q.legend, "datasource": datasource()})
	}
	custom := map[string]any{"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
	if p.stacked {
		custom["fillOpacity"], custom["stacking"] = 60, map[string]string{"mode": "normal"}
	}
	out := map[string]any{
		"id": id, "type": "timeseries", "title": p.title, "datasource": datasource(), "gridPos": grid(x, y, panelWidth, panelHeight), "targets": targets,
		"fieldConfig": map[string]any{"defaults": map[string]any{"unit": p.unit, "min": 0, "custom": custom}, "overrides": []any{}},
		"options":     map[string]any{"legend": map[string]any{"showLegend": true, "displayMode": "list", "placement": "bottom"}, "tooltip": map[string]string{"mode": "multi", "sort": "desc"}},
	}
	if p.doc != "" {
		out["description"] = p.doc
	}
	return out
}
