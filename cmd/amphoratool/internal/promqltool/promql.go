// Package promqltool owns the commands that need no server: formatting PromQL and writing label
// policies as headers.
package promqltool

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Register adds the families `promql` and `acl`.
func Register(app *kingpin.Application, e *cli.Env) {
	var query string
	var pretty bool
	family := app.Command("promql", "Work with expressions.")
	format := family.Command("format", "Lay an expression out.")
	format.Arg("query", "The expression.").Required().StringVar(&query)
	format.Flag("pretty", "Over several lines.").BoolVar(&pretty)
	e.Do(format, func(context.Context) error {
		tree, err := rulefiles.Parser().ParseExpr(query)
		if err != nil {
			return err
		}
		if pretty {
			e.Say("%s", tree.Pretty(0))
			return nil
		}
		e.Say("%s", tree.String())
		return nil
	})

	var id string
	var rules []string
	acl := app.Command("acl", "Hold reads to some series.")
	header := acl.Command("generate-header", "Write the header that holds reads of a tenant to series that one of the rules selects.")
	header.Flag("id", "The tenant.").Required().StringVar(&id)
	header.Flag("rule", "A selector, as {env=\"dev\"}; may repeat.").Required().StringsVar(&rules)
	e.Do(header, func(context.Context) error {
		if _, err := tenant.Parse(id); err != nil {
			return err
		}
		for _, r := range rules {
			if _, err := rulefiles.Parser().ParseMetricSelector(r); err != nil {
				return fmt.Errorf("rule %s: %w", r, err)
			}
			if r == "" {
				return errors.New("a rule is empty")
			}
		}
		h := http.Header{}
		tenant.AddPolicy(h, id, tenant.Policy{rules})
		e.Say("%s: %s", tenant.PolicyHeader, h.Get(tenant.PolicyHeader))
		return nil
	})
}
