package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/prometheus/common/model"
)

// settings is what a workspace sets of its own limits. A nil member leaves the limit as it is.
type settings struct {
	LabelSets   []labelSet `json:"limitsPerLabelSet,omitempty"`
	Retention   *int64     `json:"retentionPeriodInDays,omitempty"`
	OutOfOrder  *int64     `json:"outOfOrderTimeWindowInSeconds,omitempty"`
	QueryOffset *int64     `json:"ruleQueryOffsetInSeconds,omitempty"`
}

type labelSet struct {
	Limits struct {
		MaxSeries int64 `json:"maxSeries"`
	} `json:"limits"`
	Labels map[string]string `json:"labelSet"`
}

const (
	maxRetentionDays = 36_500
	maxSeconds       = 100 * 365 * 24 * 3600
)

func (s *settings) check() error {
	for name, v := range map[string]*int64{"outOfOrderTimeWindowInSeconds": s.OutOfOrder, "ruleQueryOffsetInSeconds": s.QueryOffset} {
		if v != nil && (*v < 0 || *v > maxSeconds) {
			return invalid(name, fmt.Sprintf("%s must be 0 to %d, not %d", name, maxSeconds, *v))
		}
	}
	if s.Retention != nil && (*s.Retention < 1 || *s.Retention > maxRetentionDays) {
		return invalid("retentionPeriodInDays", fmt.Sprintf("retentionPeriodInDays must be 1 to %d, not %d", maxRetentionDays, *s.Retention))
	}
	for _, l := range s.LabelSets {
		if l.Limits.MaxSeries < 0 {
			return invalid("limitsPerLabelSet", "maxSeries must be 0 or more")
		}
		for name := range l.Labels {
			if !model.UTF8Validation.IsValidLabelName(name) {
				return invalid("limitsPerLabelSet", fmt.Sprintf("%q is no name of a label", name))
			}
		}
	}
	return nil
}

func describeSettings(c *Control, x *call) (reply, error) {
	w, err := c.own(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	out := struct {
		Status status `json:"status"`
		settings
	}{Status: status{Code: active}}
	if w.Settings != nil {
		out.settings = *w.Settings
		if err := c.checkLimits(w.ID, w.Settings); err != nil { // then processes leave all of it out
			out.Status = status{"UPDATE_FAILED", shortened(err.Error())}
		}
	}
	return reply{http.StatusOK, map[string]any{"workspaceConfiguration": out}}, nil
}

func updateSettings(c *Control, x *call) (reply, error) {
	var in struct {
		settings
		Token string `json:"clientToken"`
	}
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if in.LabelSets == nil && in.Retention == nil && in.OutOfOrder == nil && in.QueryOffset == nil {
		return reply{}, invalid("", "at least one setting must be given")
	}
	if err := in.check(); err != nil {
		return reply{}, err
	}
	_, err := c.changeWorkspace(x, "UpdateWorkspaceConfiguration", in.Token, hashOf(x.segment(1), in.settings), func(w *workspace) (any, error) {
		s := settings{}
		if w.Settings != nil {
			s = *w.Settings
		}
		if in.LabelSets != nil {
			s.LabelSets = in.LabelSets
		}
		if in.Retention != nil {
			s.Retention = in.Retention
		}
		if in.OutOfOrder != nil {
			s.OutOfOrder = in.OutOfOrder
		}
		if in.QueryOffset != nil {
			s.QueryOffset = in.QueryOffset
		}
		if err := c.checkLimits(w.ID, &s); err != nil {
			return nil, err
		}
		w.Settings = &s
		return nil, nil
	})
	return accepted("UPDATING"), err
}

// checkLimits refuses settings that the tenant's limits cannot be, as two entries for one label set.
func (c *Control) checkLimits(id string, s *settings) error {
	data, err := overrides(map[string]map[string]any{id: s.limits()})
	if err != nil {
		return err
	}
	if err := c.deps.CheckLimits("the configuration", data); err != nil {
		return invalid("limitsPerLabelSet", err.Error())
	}
	return nil
}

// limits are the settings as limits of the tenant, by name.
func (s *settings) limits() map[string]any {
	out := map[string]any{}
	if s.Retention != nil {
		out["compactor_blocks_retention_period"] = fmt.Sprint(*s.Retention*24) + "h"
	}
	if s.OutOfOrder != nil {
		out["out_of_order_time_window"] = fmt.Sprint(*s.OutOfOrder) + "s"
	}
	if s.QueryOffset != nil {
		out["ruler_evaluation_delay_duration"] = fmt.Sprint(*s.QueryOffset) + "s"
	}
	var sets []map[string]any
	for _, l := range s.LabelSets {
		if l.Limits.MaxSeries > 0 { // 0 only counts
			sets = append(sets, map[string]any{"label_set": l.Labels, "limits": map[string]any{"max_series": l.Limits.MaxSeries}})
		}
	}
	if sets != nil {
		out["limits_per_label_set"] = sets
	}
	return out
}

// policy is the resource policy of a workspace.
type policy struct {
	Document string `json:"document"`
	Revision string `json:"revision"`
}

const (
	policyKind     = "policy"
	noPolicy       = "NO_POLICY"
	maxPolicyBytes = 20 << 10
)

func putPolicy(c *Control, x *call) (reply, error) {
	var in struct {
		Document string `json:"policyDocument"`
		Revision string `json:"revisionId"`
		Token    string `json:"clientToken"`
	}
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	var shape map[string]any
	switch {
	case len(in.Document) > maxPolicyBytes:
		return reply{}, invalid("policyDocument", "policyDocument is larger than "+fmt.Sprint(maxPolicyBytes)+" bytes")
	case json.Unmarshal([]byte(in.Document), &shape) != nil || shape["Statement"] == nil:
		return reply{}, invalid("policyDocument", "policyDocument is no JSON object with a Statement")
	}
	if check := c.deps.CheckPolicy; check != nil {
		if err := check([]byte(in.Document)); err != nil {
			return reply{}, invalid("policyDocument", err.Error())
		}
	}
	id := x.segment(1)
	raw, err := c.changeWorkspace(x, "PutResourcePolicy", in.Token, hashOf(id, in.Document, in.Revision), func(w *workspace) (any, error) {
		if err := w.checkRevision(in.Revision); err != nil {
			return nil, err
		}
		w.Policy = &policy{in.Document, strings.ReplaceAll(uuid.NewString(), "-", "")}
		return map[string]string{"policyStatus": "CREATING", "revisionId": w.Policy.Revision}, nil
	})
	c.seen.forget(id)
	return reply{http.StatusAccepted, raw}, err
}

// checkRevision refuses a change of a policy that is not the one the caller saw.
func (w *workspace) checkRevision(revision string) error {
	switch {
	case revision == "",
		revision == noPolicy && w.Policy == nil,
		w.Policy != nil && w.Policy.Revision == revision:
		return nil
	}
	return conflict(policyKind, w.ID, "the policy has another revision than "+revision)
}

func describePolicy(c *Control, x *call) (reply, error) {
	w, err := c.own(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	if w.Policy == nil {
		return reply{}, missing(policyKind, w.ID)
	}
	return reply{http.StatusOK, map[string]string{"policyDocument": w.Policy.Document, "policyStatus": active, "revisionId": w.Policy.Revision}}, nil
}

func deletePolicy(c *Control, x *call) (reply, error) {
	id, revision := x.segment(1), x.query.Get("revisionId")
	_, err := c.changeWorkspace(x, "DeleteResourcePolicy", x.query.Get("clientToken"), hashOf(id, revision), func(w *workspace) (any, error) {
		if w.Policy == nil {
			return nil, missing(policyKind, id)
		}
		if err := w.checkRevision(revision); err != nil {
			return nil, err
		}
		w.Policy = nil
		return nil, nil
	})
	c.seen.forget(id)
	return reply{http.StatusAccepted, nil}, err
}
