package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// The shapes of Prometheus's answers.
type (
	groupsData struct {
		Groups    []group `json:"groups"`
		NextToken string  `json:"groupNextToken,omitempty"`
	}
	group struct {
		Name           string    `json:"name"`
		File           string    `json:"file"`
		Rules          []any     `json:"rules"`
		Interval       float64   `json:"interval"`
		Limit          int64     `json:"limit"`
		EvaluationTime float64   `json:"evaluationTime"`
		LastEvaluation time.Time `json:"lastEvaluation"`
		SourceTenants  []string  `json:"sourceTenants,omitempty"`
		LastError      string    `json:"lastError,omitempty"` // of the first of its rules that failed
	}
	alertingRule struct {
		State          string            `json:"state"`
		Name           string            `json:"name"`
		Query          string            `json:"query"`
		Duration       float64           `json:"duration"`
		KeepFiringFor  float64           `json:"keepFiringFor"`
		Labels         map[string]string `json:"labels"`
		Annotations    map[string]string `json:"annotations"`
		Alerts         []alert           `json:"alerts"`
		Health         string            `json:"health"`
		LastError      string            `json:"lastError,omitempty"`
		EvaluationTime float64           `json:"evaluationTime"`
		LastEvaluation time.Time         `json:"lastEvaluation"`
		Type           string            `json:"type"`
	}
	recordingRule struct {
		Name           string            `json:"name"`
		Query          string            `json:"query"`
		Labels         map[string]string `json:"labels"`
		Health         string            `json:"health"`
		LastError      string            `json:"lastError,omitempty"`
		EvaluationTime float64           `json:"evaluationTime"`
		LastEvaluation time.Time         `json:"lastEvaluation"`
		Type           string            `json:"type"`
	}
	alertsData struct {
		Alerts []alert `json:"alerts"`
	}
	alert struct {
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		State           string            `json:"state"`
		ActiveAt        *time.Time        `json:"activeAt,omitempty"`
		KeepFiringSince *time.Time        `json:"keepFiringSince,omitempty"`
		Value           string            `json:"value"`
	}
)

// List answers with the groups of the calling tenant and what became of them.
func (a *API) List(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	warnings, err := a.evaluated(id)
	if err != nil {
		return err
	}
	if err := r.ParseForm(); err != nil {
		return errs.New(errs.Invalid, "error parsing form values: %w", err)
	}
	req, err := request(r)
	if err != nil {
		return err
	}
	most, token, err := page(r)
	if err != nil {
		return err
	}
	groups, err := a.b.Evaluator.List(r.Context(), id, req)
	if err != nil {
		return err
	}
	data := groupsData{Groups: []group{}}
	if token != "" {
		i := slices.IndexFunc(groups, func(g *rulerpb.Group) bool { return tokenOf(g) == token })
		if i < 0 {
			return errs.New(errs.Invalid, "invalid parameter \"group_next_token\": invalid group_next_token '%s'. were rule groups changed?", token)
		}
		groups = groups[i:]
	}
	if most > 0 && len(groups) > most {
		data.NextToken = tokenOf(groups[most])
		groups = groups[:most]
	}
	for _, g := range groups {
		data.Groups = append(data.Groups, groupOf(g))
	}
	return send(w, http.StatusOK, success{"success", data, warnings})
}

// success is the frame of an answer.
type success struct {
	Status   string   `json:"status"`
	Data     any      `json:"data"`
	Warnings []string `json:"warnings,omitempty"`
}

// evaluated returns warnings about kinds of rules that are not evaluated. Errors: Unprocessable if
// none is.
func (a *API) evaluated(id tenant.ID) ([]string, error) {
	recording, alerting := a.b.Evaluator.Evaluated(id)
	switch {
	case !recording && !alerting:
		return nil, errs.New(errs.Unprocessable, "both recording and alerting rules evaluation are disabled for the tenant")
	case !recording:
		return []string{"recording rules evaluation is disabled for the tenant"}, nil
	case !alerting:
		return []string{"alerting rules evaluation is disabled for the tenant"}, nil
	}
	return nil, nil
}

// request reads what is asked for.
func request(r *http.Request) (*rulerpb.GroupsRequest, error) {
	req := &rulerpb.GroupsRequest{Rules: r.Form["rule_name[]"], Groups: r.Form["rule_group[]"], Namespaces: r.Form["file[]"], Match: r.Form["match[]"]}
	switch kind := strings.ToLower(r.Form.Get("type")); kind {
	case "":
	case "alert":
		req.Kind = rulerpb.GroupsRequest_ALERTING
	case "record":
		req.Kind = rulerpb.GroupsRequest_RECORDING
	default:
		return nil, errs.New(errs.Invalid, "invalid parameter \"type\": not supported value %q", kind)
	}
	if text := strings.ToLower(r.Form.Get("exclude_alerts")); text != "" {
		var err error
		if req.ExcludeAlerts, err = strconv.ParseBool(text); err != nil {
			return nil, errs.New(errs.Invalid, "invalid parameter \"exclude_alerts\": error converting exclude_alerts: %w", err)
		}
	}
	return req, nil
}

// page reads how many groups are asked for, 0 for all, and where they begin.
func page(r *http.Request) (most int, token string, err error) {
	limit := r.Form.Get("group_limit")
	token = r.Form.Get("group_next_token")
	if limit == "" {
		if token != "" {
			return 0, "", errs.New(errs.Invalid, "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups")
		}
		return 0, "", nil
	}
	n, err := strconv.ParseInt(limit, 10, 32)
	if err != nil {
		return 0, "", errs.New(errs.Invalid, "invalid parameter \"group_limit\": group_limit needs to be a valid number: %w", err)
	}
	if n <= 0 {
		return 0, "", errs.New(errs.Invalid, "invalid parameter \"group_limit\": group_limit needs to be greater than 0")
	}
	return int(n), token, nil
}

// tokenOf names the page that begins with g, as Prometheus does.
func tokenOf(g *rulerpb.Group) string {
	sum := sha256.Sum256([]byte(g.Namespace + ";" + g.Name))
	return hex.EncodeToString(sum[:])
}

func groupOf(g *rulerpb.Group) group {
	out := group{Name: g.Name, File: g.Namespace, Rules: []any{}, Interval: seconds(g.IntervalNs), Limit: g.Limit,
		EvaluationTime: seconds(g.EvaluationNs), LastEvaluation: at(g.EvaluatedNs), SourceTenants: g.SourceTenants}
	for _, r := range g.Rules {
		if r.LastError != "" && out.LastError == "" {
			out.LastError = r.Name + ": " + r.LastError
		}
		if r.Alerting {
			out.Rules = append(out.Rules, alertingRule{
				State: r.State, Name: r.Name, Query: r.Query, Duration: seconds(r.ForNs), KeepFiringFor: seconds(r.KeepFiringForNs),
				Labels: mapOf(r.Labels), Annotations: mapOf(r.Annotations), Alerts: alertsOf(r), Health: r.Health, LastError: r.LastError,
				EvaluationTime: seconds(r.EvaluationNs), LastEvaluation: at(r.EvaluatedNs), Type: "alerting",
			})
			continue
		}
		out.Rules = append(out.Rules, recordingRule{
			Name: r.Name, Query: r.Query, Labels: mapOf(r.Labels), Health: r.Health, LastError: r.LastError,
			EvaluationTime: seconds(r.EvaluationNs), LastEvaluation: at(r.EvaluatedNs), Type: "recording",
		})
	}
	return out
}

func alertsOf(r *rulerpb.Rule) []alert {
	out := []alert{}
	for _, x := range r.Alerts {
		active := at(x.ActiveNs)
		one := alert{Labels: mapOf(x.Labels), Annotations: mapOf(x.Annotations), State: x.State, ActiveAt: &active,
			Value: strconv.FormatFloat(x.Value, 'e', -1, 64)}
		if x.KeepFiringSinceNs != 0 {
			since := at(x.KeepFiringSinceNs)
			one.KeepFiringSince = &since
		}
		out = append(out, one)
	}
	return out
}

func seconds(ns int64) float64 { return time.Duration(ns).Seconds() }

// at is a time since the epoch; 0 is Prometheus's never.
func at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func mapOf(ls []*rulerpb.Label) map[string]string {
	out := make(map[string]string, len(ls))
	for _, l := range ls {
		out[l.Name] = l.Value
	}
	return out
}

// Alerts answers with the active alerts of the calling tenant.
func (a *API) Alerts(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	groups, err := a.b.Evaluator.List(r.Context(), id, &rulerpb.GroupsRequest{Kind: rulerpb.GroupsRequest_ALERTING})
	if err != nil {
		return err
	}
	data := alertsData{Alerts: []alert{}}
	for _, g := range groups {
		for _, rule := range g.Rules {
			data.Alerts = append(data.Alerts, alertsOf(rule)...)
		}
	}
	return send(w, http.StatusOK, success{"success", data, nil})
}
