package gateway

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// resourcePolicyActions are those that the resource policies of workspaces count for, as with Amazon's
// service. What such a policy says about others is kept and has no effect.
var resourcePolicyActions = map[string]bool{
	"aps:RemoteWrite": true, "aps:QueryMetrics": true, "aps:GetSeries": true, "aps:GetLabels": true, "aps:GetMetricMetadata": true,
}

// rememberedPolicies is how many parsed policies are kept at least.
const rememberedPolicies = 1000

// policies remembers parsed resource policies by their text, in two generations.
type policies struct {
	mu         sync.Mutex // guards what follows
	young, old map[string]*iam.Policy
}

func newPolicies() *policies { return &policies{young: map[string]*iam.Policy{}} }

// of returns the policy of a workspace; nil: it has none. One that cannot be read lets nobody in, because
// it may deny. Errors: Denied, Unavailable.
func (p *policies) of(ctx context.Context, from Workspaces, workspace string) (*iam.Policy, error) {
	text, err := from.Policy(ctx, workspace)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	if text == "" {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	parsed := p.young[text]
	if parsed == nil {
		parsed = p.old[text]
	}
	if parsed == nil {
		if parsed, err = iam.ParsePolicy(iam.ResourcePolicy, []byte(text)); err != nil {
			return nil, refuse(http.StatusForbidden, codeDenied, "the resource policy of the workspace cannot be read: %s", err)
		}
	}
	if len(p.young) >= rememberedPolicies {
		p.old, p.young = p.young, map[string]*iam.Policy{}
	}
	p.young[text] = parsed
	return parsed, nil
}

// maxTaggingBytes bounds the body of a call that sets tags; the largest has a rule file in it.
const maxTaggingBytes = 4 << 20

// readTags finds out which tags a call would set or take away, which conditions of policies may be about.
// A body that cannot be decoded has none: who serves the call decodes the same and refuses it.
func (g *Gateway) readTags(w http.ResponseWriter, r *http.Request, c *call) error {
	if c.target.flavour != operation || !g.cfg.Enabled {
		return nil
	}
	var in struct {
		Tags map[string]string `json:"tags"`
	}
	var named struct {
		Name string `json:"name"`
	}
	switch c.target.route.Action {
	case "aps:UntagResource":
		c.tagKeys = slices.Sorted(slices.Values(r.URL.Query()["tagKeys"]))
		return nil
	case "aps:CreateWorkspace", "aps:TagResource", "aps:CreateRuleGroupsNamespace", "aps:CreateAnomalyDetector", "aps:CreateScraper":
	default:
		return nil
	}
	if c.held == nil {
		held, err := g.hold(w, r, maxTaggingBytes)
		c.held = held
		if err != nil {
			return err
		}
	}
	if err := json.Unmarshal(c.held.bytes(), &in); err == nil {
		c.requestTags, c.tagKeys = in.Tags, slices.Sorted(maps.Keys(in.Tags))
	}
	if c.target.route.Action == "aps:CreateRuleGroupsNamespace" && json.Unmarshal(c.held.bytes(), &named) == nil && named.Name != "" {
		c.resource = "rulegroupsnamespace/" + c.target.workspace + "/" + named.Name // the one to be made
	}
	return nil
}
