package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/alertmanager/silence"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// Overview is what the page of a tenant's alertmanager shows.
type Overview struct {
	Groups   models.AlertGroups
	Silences models.GettableSilences
}

// Overview returns the groups with alerts that match all filters, such as severity="page", and the
// silences. Errors: Invalid, Unavailable.
func (m *Alertmanager) Overview(ctx context.Context, id tenant.ID, filters []string) (Overview, error) {
	var out Overview
	query := ""
	if len(filters) > 0 {
		query = "?" + url.Values{"filter": filters}.Encode()
	}
	if err := m.fetch(ctx, id, &pb.Request{Method: http.MethodGet, Uri: "/api/v2/alerts/groups" + query}, "/api/v2/alerts/groups", &out.Groups); err != nil {
		return out, err
	}
	const silences = "/api/v2/silences"
	return out, m.fetch(ctx, id, &pb.Request{Method: http.MethodGet, Uri: silences}, silences, &out.Silences)
}

// Silence makes a silence that begins now, for alerts that all matchers match, which are written as in
// {severity="page", job=~"a|b"}, and returns its ID. Errors: Invalid, Unavailable.
func (m *Alertmanager) Silence(ctx context.Context, id tenant.ID, matchers string, length time.Duration, author, comment string) (string, error) {
	parsed, err := compat.Matchers(matchers, "page")
	if err != nil {
		return "", errs.New(errs.Invalid, "matchers: %w", err)
	}
	begin, end := strfmt.DateTime(time.Now()), strfmt.DateTime(time.Now().Add(length))
	in := models.PostableSilence{Silence: models.Silence{StartsAt: &begin, EndsAt: &end, CreatedBy: &author, Comment: &comment}}
	for _, x := range parsed {
		regex, equal := x.Type == labels.MatchRegexp || x.Type == labels.MatchNotRegexp, x.Type == labels.MatchEqual || x.Type == labels.MatchRegexp
		in.Matchers = append(in.Matchers, &models.Matcher{Name: &x.Name, Value: &x.Value, IsRegex: &regex, IsEqual: &equal})
	}
	body, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("encode the silence: %w", err)
	}
	const path = "/api/v2/silences"
	var out struct{ SilenceID string }
	err = m.fetch(ctx, id, &pb.Request{Method: http.MethodPost, Uri: path, Body: body, Headers: asJSON()}, path, &out)
	return out.SilenceID, err
}

// Expire ends a silence. Errors: NotFound, Unavailable.
func (m *Alertmanager) Expire(ctx context.Context, id tenant.ID, silence string) error {
	path := "/api/v2/silence/" + url.PathEscape(silence)
	return m.fetch(ctx, id, &pb.Request{Method: http.MethodDelete, Uri: path}, path, nil)
}

func asJSON() []*pb.Header {
	return []*pb.Header{{Name: "Content-Type", Values: []string{"application/json"}}}
}

// fetch asks the replicas and decodes the answer into out, if that is not nil.
func (m *Alertmanager) fetch(ctx context.Context, id tenant.ID, req *pb.Request, path string, out any) error {
	answer, err := m.ask(tenant.Inject(ctx, id), id, req, path)
	if err != nil {
		return err
	}
	switch status := answer.GetStatus(); {
	case status == http.StatusNotFound:
		return errs.New(errs.NotFound, "there is no such silence")
	case status >= 300:
		return errs.New(errs.Invalid, "%s", bytes.TrimSpace(answer.GetBody()))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer.GetBody(), out); err != nil {
		return fmt.Errorf("answer of %s: %w", path, err)
	}
	return nil
}

// TenantStatus is the alertmanager of one tenant on this replica.
type TenantStatus struct {
	Tenant   tenant.ID
	Version  string // of its configuration
	Fallback bool   // it has no configuration of its own
	Settled  bool
	Position int // 0: it sends first
	Alerts   int
	Silences int // that are not expired
}

// Status lists the tenants of this replica.
func (m *Alertmanager) Status(ctx context.Context) []TenantStatus {
	m.mu.Lock()
	here := maps.Clone(m.instances)
	m.mu.Unlock()
	var out []TenantStatus
	for _, id := range slices.Sorted(maps.Keys(here)) {
		in := here[id]
		alerts, _ := in.limit.totals()
		silences, _ := in.silences.CountState(ctx, silence.SilenceStateActive, silence.SilenceStatePending) // it is shown as 0
		out = append(out, TenantStatus{Tenant: id, Version: in.has(), Fallback: in.fallback.Load(), Settled: in.isSettled(), Position: in.position(),
			Alerts: alerts, Silences: silences})
	}
	return out
}

// Configurations is all tenants' configurations as a YAML mapping, secrets masked.
func (m *Alertmanager) Configurations(ctx context.Context) ([]byte, error) {
	versions, err := m.defs.Versions(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]Definition, len(versions))
	for id := range versions {
		data, _, err := m.defs.Read(ctx, id)
		if errs.KindOf(err) == errs.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := parse(data, m.rules, limits.View{})
		if err != nil {
			out[string(id)] = Definition{Config: "# it is wrong and not in force: " + err.Error()}
			continue
		}
		d.Config = d.conf.String()
		out[string(id)] = d.Definition
	}
	return yaml.Marshal(out)
}
