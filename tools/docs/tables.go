package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

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

const limitsHead = `# Limits

Every limit is a flag, a key under ` + "`limits:`" + ` in the configuration file, and a key of a tenant in the overrides file
(` + "`overrides: {tenant: {key: value}}`" + `). An override wins over the file, a flag over the file.

`

func writeLimits(w io.Writer, _ *house.Tree) error {
	if _, err := io.WriteString(w, limitsHead); err != nil {
		return err
	}
	var rows [][]string
	for _, r := range limits.Table {
		doc := r.Doc
		if len(r.Allowed) > 0 {
			doc += " One of: " + strings.Join(r.Allowed, ", ") + "."
		}
		rows = append(rows, []string{code(r.Name), code("-" + r.Flag), code(text(r.Default)), r.Unit, doc, strings.Join(r.By, ", ")})
	}
	return table(w, []string{"key", "flag", "default", "unit", "meaning", "enforced by"}, rows)
}

// text writes the default of a limit as the overrides file takes it.
func text(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return config.FormatDuration(v)
	case float64:
		return config.FormatFloat(v)
	case []string:
		return strings.Join(v, ",")
	}
	return fmt.Sprint(v)
}

const errorsHead = `# Errors

The kind of an error decides its status everywhere. "Retry" says whether the same request may succeed later; Prometheus
sends a push again after 5xx, and after 429 if told so.

`

const idsHead = `
## Ids

A refusal that alerts, log filters or runbooks may key on carries ` + "`(err-amphora-<id>)`" + ` in its text. In the texts below
` + "`…`" + ` stands for what is filled in.

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
	found := errorIDs(tree)
	slices.SortFunc(found, func(a, b errorID) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.room, b.room), cmp.Compare(a.text, b.text))
	})
	rows = nil
	for _, e := range slices.Compact(found) {
		rows = append(rows, []string{code(e.id), e.kind, e.text, e.room})
	}
	return table(w, []string{"id", "kind", "text", "from"}, rows)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

const metricsHead = `# Metrics

Served at ` + "`/metrics`" + ` of every process. Names follow those of the field behind the prefix ` + "`amphora_`" + `. What the libraries
measure (object storage, ring, gossip, gRPC, the Go runtime) is there too and described by its own help text.

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

const httpHead = `# HTTP API

A route exists in a process that runs its service. Routes of the data plane take the tenant from ` + "`X-Scope-OrgID`" + `; those
marked "some" also take several tenants, ` + "`a|b`" + `, if that is allowed. ` + "`/prometheus`" + ` stands for the configured prefix.

`

func writeHTTP(w io.Writer, _ *house.Tree) error {
	if _, err := io.WriteString(w, httpHead); err != nil {
		return err
	}
	tenants := map[api.Tenancy]string{api.OneTenant: "one", api.Tenants: "some"}
	var rows [][]string
	for i := range api.Routes {
		r := &api.Routes[i]
		path := strings.TrimSuffix(r.Path, "{$}")
		rows = append(rows, []string{strings.ReplaceAll(r.Methods, ",", ", "), code(path), string(r.Service), tenants[r.Tenancy], code(string(r.Action)), r.Doc})
	}
	return table(w, []string{"method", "path", "service", "tenant", "action", "meaning"}, rows)
}

func writeConfig(w io.Writer, _ *house.Tree) error {
	set := config.NewSet()
	app.Declare(set)
	return set.Print(w, config.ModeReference)
}
