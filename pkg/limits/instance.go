package limits

import (
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// InstanceLimits is what one process takes on, whatever its tenants are allowed. 0: no limit. The
// room that enforces a limit declares its setting; the runtime file can change it meanwhile.
type InstanceLimits struct {
	MaxTenants                   int // of an ingester
	MaxSeries                    int // in memory of an ingester
	MaxInflightPushRequests      int
	MaxInflightPushRequestsBytes int
}

// instanceChange is the instance limits that a runtime file sets.
type instanceChange struct {
	values InstanceLimits
	given  [4]bool // by instanceRows
}

// instanceRow is one key of the sections ingester_limits and distributor_limits.
type instanceRow struct {
	name         string
	onlyIngester bool
	ints         func(*InstanceLimits) *int
}

func instanceRows() [4]instanceRow {
	return [4]instanceRow{
		{"max_tenants", true, func(l *InstanceLimits) *int { return &l.MaxTenants }},
		{"max_series", true, func(l *InstanceLimits) *int { return &l.MaxSeries }},
		{"max_inflight_push_requests", false, func(l *InstanceLimits) *int { return &l.MaxInflightPushRequests }},
		{"max_inflight_push_requests_bytes", false, func(l *InstanceLimits) *int { return &l.MaxInflightPushRequestsBytes }},
	}
}

// parse adds the keys of the section n.
func (c *instanceChange) parse(doc *strict.Doc, n *yaml.Node, section string, ingester bool) {
	var names []string
	for _, r := range instanceRows() {
		if ingester || !r.onlyIngester {
			names = append(names, r.name)
		}
	}
	for _, e := range doc.Entries(n, section) {
		known := false
		for i, r := range instanceRows() {
			if r.name != e.Key || r.onlyIngester && !ingester {
				continue
			}
			known = true
			if !strict.IsNull(e.Value) && c.parseRow(doc, e, section+": "+e.Key, r) {
				c.given[i] = true
			}
		}
		if !known {
			doc.Problems.Add(doc.Where(e.Line), "%s: unknown limit %q%s", section, e.Key, strict.Suggest(e.Key, names))
		}
	}
}

func (c *instanceChange) parseRow(doc *strict.Doc, e strict.Entry, path string, r instanceRow) bool {
	x, ok := (&Row{Default: 0}).read(doc, e, path)
	if n, isInt := x.(int); ok && isInt {
		*r.ints(&c.values) = n
		return true
	}
	return false
}

// apply returns base with the changes made.
func (c *instanceChange) apply(base InstanceLimits) InstanceLimits {
	for i, r := range instanceRows() {
		if c.given[i] {
			*r.ints(&base) = *r.ints(&c.values)
		}
	}
	return base
}

// node returns the changes as YAML, nil if there are none.
func (c *instanceChange) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i, r := range instanceRows() {
		if c.given[i] {
			n.Content = append(n.Content, node(r.name), node(*r.ints(&c.values)))
		}
	}
	if len(n.Content) == 0 {
		return nil
	}
	return n
}
