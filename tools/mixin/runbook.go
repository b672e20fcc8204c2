package main

import (
	"bytes"
	"fmt"
	"strings"
)

// anchor is the link to a heading, as Markdown pages make it.
func anchor(heading string) string { return strings.ToLower(heading) }

// runbooks writes what to do about every alert and every id of a refusal.
func runbooks() []byte {
	var b bytes.Buffer
	b.WriteString(`# Runbooks

Written by ` + "`go run ./tools/mixin`" + ` from the tables there. First what to do about each [alert](../operations/mixin/README.md), then what
each id means that stands in a refusal, ` + "`(err-amphora-…)`" + `.

# Alerts

`)
	for _, a := range alerts() {
		fmt.Fprintf(&b, "## Amphora%s\n\n*%s, after %s.* %s\n\n%s\n\n```\n%s\n```\n\n", a.name, a.severity, a.wait, a.means, a.act, a.expr)
	}
	b.WriteString("# Ids of refusals\n\nA limit is one of a tenant unless it is said to be of a process. [Limits](reference/limits.md) and [settings](reference/config.md) describe each.\n\n")
	for _, e := range ids() {
		fmt.Fprintf(&b, "## err-amphora-%s\n\n%s\n\n", e.id, e.text)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}
