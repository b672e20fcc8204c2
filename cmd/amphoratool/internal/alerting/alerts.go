package alerting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

// verification compares alerts of two evaluations of the same rules.
type verification struct {
	prefix, ignored, source string
	grace, every            int
	strict, talk            bool
	file                    string
}

func (c *command) registerAlerts(app *kingpin.Application) {
	v := &c.verify
	family := app.Command("alerts", "Look at alerts.")
	verify := family.Command("verify", "Compare the alerts of a Prometheus that are written here with those of the ruler.")
	// The flags of calls may stand anywhere, but only once for each name on the way to a command.
	c.server.Declare(verify, c.Env)
	client.Prefix(verify, c.Env, &v.prefix)
	verify.Flag("ignore-alerts", "Names of alerts to leave out, separated by commas.").StringVar(&v.ignored)
	verify.Flag("source-label", "Value of the label source of the Prometheus's alerts.").Default("prometheus").StringVar(&v.source)
	verify.Flag("grace-period", "Minutes by which one may be later than the other.").Default("2").IntVar(&v.grace)
	verify.Flag("frequency", "Minutes between comparisons; 0: compare once.").Default("0").IntVar(&v.every)
	c.Do(verify, c.verifyAlerts)

	validate := app.Command("validate", "Check files without a server.")
	alerts := validate.Command("alerts-file", "Say which alerts of a file of rules can never fire, as what their expressions select cannot be.")
	alerts.Arg("file", "File of rules.").Required().StringVar(&v.file)
	alerts.Flag("verbose", "Name every alert.").BoolVar(&v.talk)
	alerts.Flag("set-exit-code", "Fail if one cannot fire.").BoolVar(&v.strict)
	c.Do(alerts, c.validateAlerts)
}

// expressions are alerts that only one side has, although they fire for the grace period.
func (v verification) expressions() (missingHere, missingThere string) {
	ignore := ""
	if v.ignored != "" {
		var names []string
		for name := range strings.SplitSeq(v.ignored, ",") {
			names = append(names, regexp.QuoteMeta(strings.TrimSpace(name)))
		}
		ignore = fmt.Sprintf(",alertname!~%q", strings.Join(names, "|"))
	}
	theirs := fmt.Sprintf(`ALERTS{alertstate="firing",source=%q%s}`, v.source, ignore)
	ours := fmt.Sprintf(`ALERTS{alertstate="firing",source!=%q%s}`, v.source, ignore)
	lonely := func(a, b string) string {
		return fmt.Sprintf("(%[1]s and %[1]s offset %[3]dm) unless ignoring(source) present_over_time(%[2]s[%[3]dm])", a, b, max(v.grace, 1))
	}
	return lonely(theirs, ours), lonely(ours, theirs)
}

func (c *command) verifyAlerts(ctx context.Context) error {
	if err := c.server.Open(); err != nil {
		return err
	}
	for {
		bad, err := c.compare(ctx)
		if c.verify.every <= 0 {
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d alerts fire on one side only", bad)
			}
			return err
		}
		if err != nil {
			c.Log.Error("compare alerts", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(c.verify.every) * time.Minute):
		}
	}
}

// compare returns how many alerts differ, and names them.
func (c *command) compare(ctx context.Context) (int, error) {
	here, there := c.verify.expressions()
	bad := 0
	for _, side := range []struct{ expr, text string }{{here, "only the Prometheus fires"}, {there, "only the ruler fires"}} {
		found, err := c.query(ctx, side.expr)
		if err != nil {
			return 0, err
		}
		for _, s := range found {
			c.Say("%s: %s", side.text, s.Metric)
		}
		bad += len(found)
	}
	if bad == 0 {
		c.Say("the same alerts fire on both sides")
	}
	return bad, nil
}

func (c *command) query(ctx context.Context, expr string) (model.Vector, error) {
	body, err := c.server.Get(ctx, c.verify.prefix+"/api/v1/query?"+url.Values{"query": {expr}}.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct{ Result model.Vector }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer.Data.Result, nil
}

// validateAlerts reads the alerts of a file; reading is what finds expressions that are none.
func (c *command) validateAlerts(context.Context) error {
	list, err := rulefiles.ReadFile(c.verify.file)
	if err != nil {
		return err
	}
	alerts, never := 0, 0
	for _, ns := range list {
		for _, g := range ns.Groups {
			for _, r := range g.Rules {
				if r.Alert == "" {
					continue
				}
				alerts++
				why, err := rulefiles.Impossible(r.Expr)
				if err != nil {
					return err
				}
				if why != "" {
					never++
					c.Say("%s/%s can never fire: %s", g.Name, r.Alert, why)
				} else if c.verify.talk {
					c.Say("%s/%s can fire", g.Name, r.Alert)
				}
			}
		}
	}
	c.Say("%d alerts, %d of which can never fire", alerts, never)
	if never > 0 && c.verify.strict {
		return errors.New("some alerts can never fire")
	}
	return nil
}

// example is what templates are expanded with if nothing else is given.
func example() template.Data {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alert := template.Alert{
		Status: "firing", Labels: template.KV{"alertname": "Example", "severity": "warning"},
		Annotations: template.KV{"summary": "This is an example"}, StartsAt: at, Fingerprint: "0123456789abcdef",
	}
	return template.Data{
		Receiver: "example", Status: "firing", Alerts: template.Alerts{alert},
		GroupLabels: template.KV{"alertname": "Example"}, CommonLabels: alert.Labels, CommonAnnotations: alert.Annotations,
	}
}
