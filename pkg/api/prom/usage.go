package prom

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// UsageSource knows what tenants ask for. Errors have kinds.
type UsageSource interface {
	// Usage says what of what a tenant has it asked for, for encoding/json.
	Usage(ctx context.Context, id tenant.ID, have Inventory, ask UsageAsk) (any, error)
	// DropRules returns YAML that drops metrics before they are stored.
	DropRules(id tenant.ID, form string, metrics []string) (string, error)
}

// Inventory is what a tenant has of late.
type Inventory struct {
	Metrics map[string]int // series of each
	Labels  map[string]LabelCount
}

// LabelCount is how many series have a label, and how many values it has; 0 if these were not counted.
type LabelCount struct{ Series, Values int }

// UsageAsk is what is asked of a UsageSource.
type UsageAsk struct {
	Days   int // up to today
	Limit  int // entries of each list
	Unused bool
}

// The defaults and the bound of the parameters of MetricsUsage.
const (
	usageDays     = 30
	usageLimit    = 100
	maxUsageLimit = 10_000
)

// MetricsUsage answers which metrics and labels were asked for when.
func (a *API) MetricsUsage(w http.ResponseWriter, r *http.Request) error {
	id, err := a.insights(w, r)
	if err != nil {
		return err
	}
	ask := UsageAsk{Days: usageDays, Limit: usageLimit, Unused: r.Form.Get("unused") == "true"}
	if s := r.Form.Get("days"); s != "" {
		if ask.Days, err = strconv.Atoi(s); err != nil {
			return badParam("days", errors.New("it must be a number"))
		}
	}
	if s := r.Form.Get("limit"); s != "" {
		if ask.Limit, err = strconv.Atoi(s); err != nil || ask.Limit < 1 || ask.Limit > maxUsageLimit {
			return badParam("limit", errs.New(errs.Invalid, "it must be a number from 1 to %d", maxUsageLimit))
		}
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	have, err := a.inventory(ctx, a.b.Limits(id))
	if err != nil {
		return err
	}
	out, err := a.b.Usage.Usage(ctx, id, have, ask)
	if err != nil {
		return err
	}
	return a.encoded(w, r, out, nil)
}

// DropRules answers with YAML that drops the metrics metric[].
func (a *API) DropRules(w http.ResponseWriter, r *http.Request) error {
	id, err := a.insights(w, r)
	if err != nil {
		return err
	}
	text, err := a.b.Usage.DropRules(id, r.Form.Get("format"), r.Form["metric[]"])
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(text)) // of an error of the connection there is nobody left to tell
	return nil
}

// insights returns the tenant of a request, whose form is then parsed, if it is noted what the tenant asks for.
func (a *API) insights(w http.ResponseWriter, r *http.Request) (tenant.ID, error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return "", err
	}
	if row := limits.UsageInsightsEnabled.Row(); !limits.UsageInsightsEnabled.Of(a.b.Limits(id)) {
		return "", errs.New(errs.Invalid, "usage insights are disabled for tenant %s; the limit %s enables them", id, row.Name)
	}
	return id, parseForm(w, r)
}

// inventory counts the series in the ingesters by metric and by label. The values of labels are counted where the tenant may
// have that done; what is counted must not be larger than its limit.
func (a *API) inventory(ctx context.Context, v limits.View) (Inventory, error) {
	have := Inventory{Metrics: map[string]int{}, Labels: map[string]LabelCount{}}
	values := map[string]map[string]struct{}{}
	size, most, series := 0, limits.LabelNamesAndValuesResultsMaxSize.Of(v), 0
	whole := limits.CardinalityAnalysisEnabled.Of(v)
	every := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")}
	err := a.b.Series.RecentSeries(ctx, false, every, func(ls labels.Labels) error {
		if series++; series%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ls.Range(func(l labels.Label) {
			if l.Name == model.MetricNameLabel {
				if have.Metrics[l.Value]++; have.Metrics[l.Value] == 1 {
					size += len(l.Value)
				}
				return
			}
			c := have.Labels[l.Name]
			if c.Series++; c.Series == 1 {
				size += len(l.Name)
			}
			if whole {
				of := values[l.Name]
				if of == nil {
					of = map[string]struct{}{}
					values[l.Name] = of
				}
				if _, ok := of[l.Value]; !ok {
					of[l.Value] = struct{}{}
					size += len(l.Value)
					c.Values++
				}
			}
			have.Labels[l.Name] = c
		})
		if most > 0 && size > most {
			return errs.New(errs.TooLarge, "label names and values are larger than %d bytes, which is as much as label_names_and_values_results_max_size_bytes lets be counted", most)
		}
		return nil
	})
	return have, err
}
