package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/tools/house"
)

// table writes a Markdown table with a head and rows.
func table(w io.Writer, head []string, rows [][]string) error {
	var b strings.Builder
	line := func(cells []string) {
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(strings.ReplaceAll(c, "|", `\|`), "\n", " ")
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(head)
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func writeLimits(w io.Writer, _ *house.Tree) error { return limits.Reference(w) }

const errorsHead = `# Errors

The kind of an error determines its status in every protocol. "Retry" says whether the same request may succeed later;
Prometheus retries a push after 5xx, and after 429 if configured to.

`

const idsHead = `
## Ids

Errors that alerts, log filters or runbooks refer to carry ` + "`(err-amphora-<id>)`" + ` in their text; each id links to its runbook. The
kind and text are given where they are fixed in the code; ` + "`…`" + ` stands for values.

`

func writeErrors(w io.Writer, tree *house.Tree) error {
	if _, err := io.WriteString(w, errorsHead); err != nil {
		return err
	}
	var rows [][]string
	for _, k := range errs.Kinds() {
		rows = append(rows, []string{k.String(), fmt.Sprint(k.HTTPStatus()), k.GRPCCode().String(), code(k.PrometheusType()), code(k.AWSType()), yes(k.Retry())})
	}
	if err := table(w, []string{"kind", "HTTP", "gRPC", "Prometheus API", "AWS", "retry"}, rows); err != nil {
		return err
	}
	if _, err := io.WriteString(w, idsHead); err != nil {
		return err
	}
	return table(w, []string{"id", "kind", "text", "from"}, idRows(errorIDs(tree)))
}

// idRows makes one row of each id: the kinds, texts and rooms of all places that raise it.
func idRows(found []errorID) [][]string {
	byID := map[string][]errorID{}
	for _, e := range found {
		byID[e.id] = append(byID[e.id], e)
	}
	var rows [][]string
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		join := func(part func(errorID) string, by string) string {
			var all []string
			for _, e := range byID[id] {
				if s := part(e); s != "" {
					all = append(all, s)
				}
			}
			slices.Sort(all)
			return strings.Join(slices.Compact(all), by)
		}
		rows = append(rows, []string{
			"[" + code(id) + "](../runbooks.md#err-amphora-" + id + ")",
			join(func(e errorID) string { return e.kind }, ", "),
			join(func(e errorID) string { return e.text }, "; or: "),
			join(func(e errorID) string { return e.room }, ", "),
		})
	}
	return rows
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

const metricsHead = `# Metrics

Served at ` + "`/metrics`" + ` of every process. Behind the prefix ` + "`amphora_`" + ` (` + "`metrics.namespace`" + `) names follow the conventions of
Cortex and Mimir. Metrics of libraries (object storage, ring, gossip, gRPC, the Go runtime) are not listed; see their help texts.

`

func writeMetrics(w io.Writer, tree *house.Tree) error {
	if _, err := io.WriteString(w, metricsHead); err != nil {
		return err
	}
	found, err := metrics(tree)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, m := range found {
		rows = append(rows, []string{code(m.name), m.kind, strings.Join(m.labels, ", "), m.help, m.room})
	}
	return table(w, []string{"name", "type", "labels", "meaning", "from"}, rows)
}

func writeHTTP(w io.Writer, _ *house.Tree) error { return api.WriteDoc(w) }

func writeConfig(w io.Writer, _ *house.Tree) error {
	set := config.NewSet()
	app.Declare(set)
	return set.Print(w, config.ModeReference)
}
