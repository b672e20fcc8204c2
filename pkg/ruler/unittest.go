package ruler

import (
	"context"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/ruletest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// testsAtOnce bounds the files of unit tests that a ruler runs at the same time, of all tenants.
	testsAtOnce = 2
	// testPatience is how long one waits for its turn.
	testPatience = 10 * time.Second
)

// testLimits bound one file: rulers evaluate rules meanwhile.
func testLimits() ruletest.Limits {
	return ruletest.Limits{Samples: 200_000, Evaluations: 20_000, Time: 30 * time.Second}
}

// UnitTest runs a file of unit tests over the rules that it brings with it, and over those namespaces of the
// tenant that rule_files names beside; over all of them if the file has neither. Errors: Invalid, RateLimited,
// Timeout.
func (r *Ruler) UnitTest(ctx context.Context, id tenant.ID, data []byte) (*ruletest.Report, error) {
	f, err := ruletest.Parse(data)
	if err != nil {
		return nil, err
	}
	patience := time.NewTimer(testPatience)
	defer patience.Stop()
	select {
	case r.testing <- struct{}{}:
		defer func() { <-r.testing }()
	case <-patience.C:
		return nil, errs.New(errs.RateLimited, "the ruler runs %d files of tests already; try again", testsAtOnce)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	files, err := r.rulesUnderTest(ctx, id, f)
	if err != nil {
		return nil, err
	}
	scheme, p := r.check.rulesOf(ctx, id)
	run := ruletest.Runner{Parser: p, Scheme: scheme, Limits: testLimits(), Lax: true} // the rules were checked here
	return run.Run(tenant.Inject(ctx, id), f, files)
}

// rulesUnderTest returns rule files by name.
func (r *Ruler) rulesUnderTest(ctx context.Context, id tenant.ID, f *ruletest.File) (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, node := range f.Rules {
		text := []byte(node.Value)
		if node.Kind != yaml.ScalarNode {
			var err error
			if text, err = marshal(&node); err != nil {
				return nil, errs.New(errs.Invalid, "rules %q: %w", name, err)
			}
		}
		if err := r.check.File(ctx, id, name, text); err != nil {
			return nil, errs.New(errs.Invalid, "rules %q: %w", name, err)
		}
		out[name] = text
	}
	all := len(f.RuleFiles) == 0 && len(f.Rules) == 0
	var stored map[string]yaml.Node
	for _, name := range f.RuleFiles {
		all = all || out[name] == nil
	}
	if !all {
		return out, nil
	}
	text, err := r.Rules(ctx, id, "", "")
	if errs.KindOf(err) == errs.NotFound {
		text, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(text, &stored); err != nil {
		return nil, errs.New(errs.Internal, "read the rules of tenant %s: %w", id, err)
	}
	names := f.RuleFiles
	if len(names) == 0 {
		for name := range stored {
			names = append(names, name)
		}
	}
	for _, name := range names {
		groups, ok := stored[name]
		if out[name] != nil {
			continue
		}
		if !ok {
			return nil, errs.New(errs.Invalid, "rule_files: %q is neither in the rules of the file nor a namespace of the tenant", name)
		}
		if out[name], err = marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "groups"}, &groups}}); err != nil {
			return nil, err
		}
	}
	return out, nil
}
