package limits

import (
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// storesSection is the section of a runtime file that says which store of rings counts.
const storesSection = "multi_kv_config"

// StoreSwitch is what the runtime files say about processes that keep their rings in two stores.
type StoreSwitch struct {
	Primary     string // the one that is read and written first; empty: as configured
	Mirror      bool   // whether changes go to the other one, too
	MirrorGiven bool   // false: as configured
}

// Stores returns what the runtime files say now.
func (o *Overrides) Stores() StoreSwitch { return o.state.Load().file.stores }

// parse adds the keys of the section n.
func (s *StoreSwitch) parse(doc *strict.Doc, n *yaml.Node) {
	for _, e := range doc.Entries(n, storesSection) {
		if strict.IsNull(e.Value) {
			continue
		}
		path := storesSection + ": " + e.Key
		switch e.Key {
		case "primary":
			row := &Row{Default: "", Allowed: []string{"consul", "etcd", "memberlist"}}
			if x, ok := row.read(doc, e, path); ok {
				s.Primary = x.(string)
			}
		case "mirror_enabled":
			row := &Row{Default: false}
			if x, ok := row.read(doc, e, path); ok {
				s.Mirror, s.MirrorGiven = x.(bool), true
			}
		default:
			doc.Problems.Add(doc.Where(e.Line), "%s: unknown key %q%s", storesSection, e.Key, strict.Suggest(e.Key, []string{"primary", "mirror_enabled"}))
		}
	}
}

// node returns the section, nil if nothing was given.
func (s *StoreSwitch) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	if s.Primary != "" {
		n.Content = append(n.Content, node("primary"), node(s.Primary))
	}
	if s.MirrorGiven {
		n.Content = append(n.Content, node("mirror_enabled"), node(s.Mirror))
	}
	if len(n.Content) == 0 {
		return nil
	}
	return n
}
