package settings

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kvSettings stands in the paths of the settings of a ring's store. Each ring of Mimir and Cortex has a store of its
// own; here all are in one, and elected replicas say only which kind theirs is.
const kvSettings = ".kvstore."

// electedStore is the one store that is chosen apart from that of the rings.
const electedStore = "distributor.ha_tracker.kvstore.store"

// storeFlags are what the flags of stores of rings begin with; Cortex's first ring has none.
func storeFlags() []string {
	return []string{"ingester.ring", "distributor.ring", "compactor.ring", "store-gateway.sharding-ring", "ruler.ring", "alertmanager.sharding-ring",
		"query-scheduler.ring", "overrides-exporter.ring", "ingester.partition-ring", "distributor.ha-tracker", "ring", ""}
}

// ofStore returns the part of a path that is about the store of a ring, "consul.host" say.
func ofStore(path string) (string, bool) {
	_, rest, ok := strings.Cut(path, kvSettings)
	return rest, ok && !strings.HasPrefix(path, "memberlist.")
}

// ofStoreFlag is the path that a flag about the store of a ring stands for in a file, by the flags that there are
// here for the store of all rings.
func (c *Conversion) ofStoreFlag(name string) (string, bool) {
	for _, ring := range storeFlags() {
		rest := name
		if ring != "" {
			after, is := strings.CutPrefix(name, ring+".")
			if !is {
				continue
			}
			rest = after
		}
		if ring == "" && (rest == "store" || rest == "prefix") {
			continue // of no ring
		}
		for path, f := range c.fields {
			if tail, is := strings.CutPrefix(path, "kvstore."); is && f.Flag == "kvstore."+rest {
				if ring == "" || ring == "ring" {
					ring = "ingester.lifecycler.ring"
				}
				return strings.ReplaceAll(ring, "-", "_") + kvSettings + tail, true
			}
		}
	}
	return "", false
}

// ringFirst puts what is said of the ingesters' ring before what is said of others: where they differ, it counts.
func ringFirst(all []setting) []setting {
	of := func(s setting) int {
		_, is := ofStore(s.path)
		first, _, _ := strings.Cut(s.path, kvSettings)
		switch {
		case !is || first != "ingester.ring" && first != "ingester.lifecycler.ring":
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(all, func(a, b setting) int { return of(a) - of(b) })
	return all
}

// addStore takes over what is said of the store of a ring for that of all rings. That of another ring must not
// say something else.
func (c *Conversion) addStore(s setting, rest string) {
	to := "kvstore." + rest
	if s.path == electedStore {
		to = electedStore
	}
	f := c.fields[to]
	why := ""
	switch {
	case rest == "store" && s.node.Value == "inmemory":
		why = "a process that runs alone keeps its rings to itself, others need a store"
	case strings.HasPrefix(s.path, "ingester.partition_ring."):
		why = "there is no partition ring"
	case f == nil:
		why = "there is no such setting of " + to[:strings.LastIndexByte(to, '.')]
	case len(f.Allowed) > 0 && !slices.Contains(f.Allowed, s.node.Value):
		why = fmt.Sprintf("%q is not one of %s", s.node.Value, strings.Join(f.Allowed, ", "))
	}
	if why != "" {
		c.Dropped = append(c.Dropped, s.path+": "+why)
		return
	}
	note := ""
	if to == "kvstore.prefix" {
		// The keys of the old system stay its own: members of both would take each other for theirs.
		own := *s.node
		own.Value = f.Default + strings.TrimLeft(own.Value, "/")
		s.node, note = &own, " (as "+own.Value+", so that the keys of both systems stay apart)"
	}
	if before, ok := c.values[to]; ok && before.path != s.path && said(before.node) != said(s.node) {
		c.Dropped = append(c.Dropped, fmt.Sprintf("%s: all rings are in one store, and %s says %s", s.path, before.path, shown(f.Secret, before.node)))
		return
	}
	if to == s.path {
		c.Kept = append(c.Kept, s.path)
	} else {
		c.Moved = append(c.Moved, s.path+" -> "+to+note)
	}
	if _, ok := c.values[to]; !ok || s.path == c.values[to].path {
		c.values[to] = s
	}
}

// said is what a setting says, to be compared.
func said(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	var items []string
	for _, i := range n.Content {
		items = append(items, i.Value)
	}
	return strings.Join(items, ",")
}

// shown is what a report may tell of a setting.
func shown(secret bool, n *yaml.Node) string {
	if secret {
		return "another one"
	}
	return said(n)
}
