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
	MaxIngestionRate             float64 // samples per second
	MaxInflightReadRequests      int     // of an ingester
}

// instanceChange is the instance limits that a runtime file sets.
type instanceChange struct {
	values InstanceLimits
	given  [6]bool // by instanceRows
}

// The sections of a runtime file with instance limits.
const (
	ingesterSection    = "ingester_limits"
	distributorSection = "distributor_limits"
)

// instanceRow is one key of the sections ingester_limits and distributor_limits.
type instanceRow struct {
	name    string
	only    string                     // the one section that has it; empty: both
	integer func(*InstanceLimits) *int // nil: it is a number
	number  func(*InstanceLimits) *float64
}

func instanceRows() [6]instanceRow {
	return [6]instanceRow{
		{"max_tenants", ingesterSection, func(l *InstanceLimits) *int { return &l.MaxTenants }, nil},
		{"max_series", ingesterSection, func(l *InstanceLimits) *int { return &l.MaxSeries }, nil},
		{"max_inflight_push_requests", "", func(l *InstanceLimits) *int { return &l.MaxInflightPushRequests }, nil},
		{"max_inflight_push_requests_bytes", "", func(l *InstanceLimits) *int { return &l.MaxInflightPushRequestsBytes }, nil},
		{"max_ingestion_rate", "", nil, func(l *InstanceLimits) *float64 { return &l.MaxIngestionRate }},
		{"max_inflight_read_requests", ingesterSection, func(l *InstanceLimits) *int { return &l.MaxInflightReadRequests }, nil},
	}
}

func (r *instanceRow) in(section string) bool { return r.only == "" || r.only == section }

// parse adds the keys of the section n.
func (c *instanceChange) parse(doc *strict.Doc, n *yaml.Node, section string) {
	var names []string
	for _, r := range instanceRows() {
		if r.in(section) {
			names = append(names, r.name)
		}
	}
	for _, e := range doc.Entries(n, section) {
		known := false
		for i, r := range instanceRows() {
			if r.name != e.Key || !r.in(section) {
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
	row := &Row{Default: 0}
	if r.integer == nil {
		row.Default = 0.0
	}
	x, ok := row.read(doc, e, path)
	if ok {
		r.set(&c.values, x)
	}
	return ok
}

// value returns the limit in l: an int or a float64.
func (r *instanceRow) value(l *InstanceLimits) any {
	if r.integer != nil {
		return *r.integer(l)
	}
	return *r.number(l)
}

// set is the inverse of value.
func (r *instanceRow) set(l *InstanceLimits, x any) {
	if r.integer != nil {
		*r.integer(l) = x.(int)
		return
	}
	*r.number(l) = x.(float64)
}

// apply returns base with the changes made.
func (c *instanceChange) apply(base InstanceLimits) InstanceLimits {
	if c.given == [len(c.given)]bool{} { // as almost always, and asked for by every push and new series
		return base
	}
	changed := base // which moves to the heap, unlike base
	for i, r := range instanceRows() {
		if c.given[i] {
			r.set(&changed, r.value(&c.values))
		}
	}
	return changed
}

// node returns the changes as YAML, nil if there are none.
func (c *instanceChange) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i, r := range instanceRows() {
		if c.given[i] {
			n.Content = append(n.Content, node(r.name), node(r.value(&c.values)))
		}
	}
	if len(n.Content) == 0 {
		return nil
	}
	return n
}
