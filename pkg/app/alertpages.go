package app

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/api/v2/models"

	"github.com/amphora-metrics/amphora/pkg/alertmanager"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// alertPages gives an alertmanager the shape that its pages ask for.
type alertPages struct{ am *alertmanager.Alertmanager }

// Alerts is part of admin.AlertPages.
func (p alertPages) Alerts(ctx context.Context, id tenant.ID, filters []string) (admin.Alerts, error) {
	in, err := p.am.Overview(ctx, id, filters)
	if err != nil {
		return admin.Alerts{}, err
	}
	var out admin.Alerts
	for _, g := range in.Groups {
		group := admin.AlertGroup{Labels: pairs(g.Labels), Receiver: textOf(g.Receiver.Name)}
		for _, a := range g.Alerts {
			one := admin.Alert{Labels: pairs(a.Labels), Annotations: pairs(a.Annotations), Source: string(a.GeneratorURL), Since: time.Time(*a.StartsAt)}
			if s := a.Status; s != nil {
				one.State, one.By = textOf(s.State), slices.Concat(s.SilencedBy, s.InhibitedBy, s.MutedBy)
			}
			group.Alerts = append(group.Alerts, one)
		}
		out.Groups = append(out.Groups, group)
	}
	for _, s := range in.Silences {
		one := admin.Silence{ID: textOf(s.ID), Author: textOf(s.CreatedBy), Comment: textOf(s.Comment), Matchers: matchersOf(s.Matchers),
			Begin: time.Time(*s.StartsAt), End: time.Time(*s.EndsAt)}
		if s.Status != nil {
			one.State = textOf(s.Status.State)
		}
		out.Silences = append(out.Silences, one)
	}
	return out, nil
}

// Silence is part of admin.AlertPages.
func (p alertPages) Silence(ctx context.Context, id tenant.ID, matchers string, length time.Duration, author, comment string) error {
	_, err := p.am.Silence(ctx, id, matchers, length, author, comment)
	return err
}

// Expire is part of admin.AlertPages.
func (p alertPages) Expire(ctx context.Context, id tenant.ID, silence string) error {
	return p.am.Expire(ctx, id, silence)
}

// tenants lists the tenants of this replica.
func (p alertPages) tenants(ctx context.Context) []admin.AlertTenant {
	var out []admin.AlertTenant
	for _, t := range p.am.Status(ctx) {
		out = append(out, admin.AlertTenant(t))
	}
	return out
}

func pairs(m models.LabelSet) []admin.Pair {
	var out []admin.Pair
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, admin.Pair{Name: name, Value: m[name]})
	}
	return out
}

// matchersOf writes matchers as people do.
func matchersOf(all models.Matchers) string {
	var out []string
	for _, m := range all {
		sign := map[[2]bool]string{{true, false}: "=", {false, false}: "!=", {true, true}: "=~", {false, true}: "!~"}[[2]bool{m.IsEqual == nil || *m.IsEqual, m.IsRegex != nil && *m.IsRegex}]
		out = append(out, textOf(m.Name)+sign+`"`+textOf(m.Value)+`"`)
	}
	return strings.Join(out, ", ")
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
