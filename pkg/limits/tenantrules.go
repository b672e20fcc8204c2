package limits

import (
	"fmt"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxTenantRules bounds the rules that every series of a request is held against.
const maxTenantRules = 64

// TenantRule says which series of a request belong to which tenant: those that have Label, with
// Value if that is not empty. They belong to Tenant or, if that is empty, to the tenant that the
// value of the label names.
type TenantRule struct {
	Label, Value string
	Tenant       tenant.ID
}

// ParseTenantRules reads rules as they stand in tenant_from_label_rules: "label" or
// "label=value:tenant".
func ParseTenantRules(list []string) ([]TenantRule, error) {
	if len(list) > maxTenantRules {
		return nil, fmt.Errorf("%d rules are more than %d", len(list), maxTenantRules)
	}
	var out []TenantRule
	for _, text := range list {
		label, rest, fixed := strings.Cut(text, "=")
		if label == "" {
			return nil, fmt.Errorf("rule %q names no label", text)
		}
		r := TenantRule{Label: label}
		if fixed {
			// A value may have colons, a tenant has none.
			at := strings.LastIndexByte(rest, ':')
			if at <= 0 {
				return nil, fmt.Errorf("rule %q must be a label, or label=value:tenant", text)
			}
			id, err := tenant.Parse(rest[at+1:])
			if err != nil {
				return nil, fmt.Errorf("rule %q: %w", text, err)
			}
			r.Value, r.Tenant = rest[:at], id
		}
		out = append(out, r)
	}
	return out, nil
}

func validTenantRules(list []string) error {
	_, err := ParseTenantRules(list)
	return err
}

// validTenantList checks names of tenants, which may end in * for all that begin so.
func validTenantList(list []string) error {
	for _, name := range list {
		if name == "*" {
			continue
		}
		if _, err := tenant.Parse(strings.TrimSuffix(name, "*")); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func validTenantOrNone(name string) error {
	if name == "" {
		return nil
	}
	_, err := tenant.Parse(name)
	return err
}
