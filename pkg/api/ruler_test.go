package api

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/api/rules"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// noRules has no rules.
type noRules struct{}

func (n noRules) deps() *RulerDeps {
	return &RulerDeps{Rules: rules.Backends{Editable: true, Store: n, Namespaces: n, Evaluator: n, Preview: n.Preview, Test: n.Test}, Ring: oneMember{}}
}

func (noRules) Rules(context.Context, tenant.ID, string, string) ([]byte, error) {
	return []byte("{}\n"), nil
}
func (noRules) SetGroup(context.Context, tenant.ID, string, []byte) error    { return nil }
func (noRules) DeleteGroup(context.Context, tenant.ID, string, string) error { return nil }
func (noRules) DeleteNamespace(context.Context, tenant.ID, string) error     { return nil }
func (noRules) DeleteAll(context.Context, tenant.ID) error                   { return nil }
func (noRules) Version(context.Context, tenant.ID, string) (string, error)   { return "", nil }
func (noRules) Protected(tenant.ID, string) bool                             { return false }
func (noRules) Tenants(context.Context) ([]tenant.ID, error)                 { return nil, nil }
func (noRules) Evaluated(tenant.ID) (recording, alerting bool)               { return true, true }
func (noRules) ReplaceAll(context.Context, tenant.ID, rules.All, func(string) error) (rules.Changes, string, error) {
	return rules.Changes{}, "", nil
}
func (noRules) Test(context.Context, tenant.ID, []byte) (any, error) { return struct{}{}, nil }
func (noRules) Preview(context.Context, tenant.ID, []byte, time.Time, time.Time) (any, error) {
	return nil, nil
}
func (noRules) Replace(context.Context, tenant.ID, string, []byte, string, bool) (rules.Changes, string, error) {
	return rules.Changes{}, "", nil
}
func (noRules) List(context.Context, tenant.ID, *rulerpb.GroupsRequest) ([]*rulerpb.Group, error) {
	return nil, nil
}
