package settings

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// setting is one leaf of a foreign configuration.
type setting struct {
	path string
	node *yaml.Node
	line int
}

// leaves lists the settings of a document in their order. A list is one setting.
func leaves(n *yaml.Node, path string) []setting {
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
		return leaves(n.Content[0], path)
	case n.Kind == yaml.AliasNode:
		return leaves(n.Alias, path)
	case n.Kind == yaml.MappingNode && len(n.Content) > 0:
		var out []setting
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if path != "" {
				key = path + "." + key
			}
			out = append(out, leaves(n.Content[i+1], key)...)
		}
		return out
	case path == "":
		return nil
	}
	return []setting{{path, n, n.Line}}
}

// moves says where settings of Mimir and Cortex stand here, by the beginning of their paths; the
// longest that fits counts. An empty place means: on purpose not.
func moves() [][2]string {
	return [][2]string{
		{"common.storage", "blocks_storage"},
		{"blocks_storage.tsdb.dir", "ingester.data_dir"},
		{"blocks_storage.tsdb.retention_period", "ingester.block_retention"},
		{"blocks_storage.tsdb.flush_blocks_on_shutdown", "ingester.flush_blocks_on_shutdown"},
		{"blocks_storage.tsdb.memory_snapshot_on_shutdown", "ingester.snapshot_on_shutdown"},
		{"blocks_storage.tsdb.head_compaction_interval", "ingester.head_compaction_interval"},
		{"blocks_storage.tsdb.early_head_compaction_min_in_memory_series", "ingester.early_head_compaction_min_in_memory_series"},
		{"blocks_storage.tsdb.early_head_compaction_min_estimated_series_reduction_percentage", "ingester.early_head_compaction_min_estimated_series_reduction_percentage"},
		{"blocks_storage.tsdb.head_postings_for_matchers_cache_ttl", "ingester.head_postings_for_matchers_cache_ttl"},
		{"blocks_storage.tsdb.head_postings_for_matchers_cache_max_bytes", "ingester.head_postings_for_matchers_cache_max_bytes"},
		// Cortex.
		{"auth_enabled", "multitenancy_enabled"},
		{"ingester.lifecycler.ring", "ingester.ring"},
		{"ingester.lifecycler.availability_zone", "ingester.ring.instance_availability_zone"},
		{"ingester.lifecycler.num_tokens", "ingester.ring.num_tokens"},
		{"ingester.lifecycler.heartbeat_period", "ingester.ring.heartbeat_period"},
		{"ingester.lifecycler.observe_period", "ingester.ring.observe_period"},
		{"ingester.lifecycler.min_ready_duration", "ingester.ring.min_ready_duration"},
		{"ingester.lifecycler.final_sleep", "ingester.ring.final_sleep"},
		{"ingester.lifecycler.tokens_file_path", "ingester.ring.tokens_file_path"},
		{"ingester.lifecycler.unregister_on_shutdown", "ingester.ring.unregister_on_shutdown"},
		{"ingester.instance_limits", "ingester.instance_limits"},
		{"querier.engine.max_samples", "querier.max_samples"},
		{"query_range.split_queries_by_interval", "frontend.split_queries_by_interval"},
		{"query_range.align_queries_with_step", "limits.align_queries_with_step"},
		{"query_range.cache_results", "frontend.cache_results"},
		{"query_range.max_retries", "frontend.max_retries_per_request"},
		{"frontend.log_queries_longer_than", "frontend.log_queries_longer_than"},
		{"ruler.external_url", "ruler.external.url"},
		{"limits.max_series_per_user", ""},
		{"limits.max_series_per_metric", ""},
		{"limits.compactor_blocks_retention_period", "limits.compactor_blocks_retention_period"},
		{"limits.ruler_evaluation_delay_duration", "limits.ruler_evaluation_delay_duration"},
		{"usage_stats", ""},
	}
}

// unneeded says why settings are left out for good, by the beginning of their paths.
func unneeded() [][2]string {
	return [][2]string{
		{"usage_stats", "nothing calls home"},
		{"blocks_storage.tsdb", "the log, the head and their sizes follow from what the machine has"},
		{"blocks_storage.bucket_store", "caches and concurrency follow from what the machine has"},
		{"limits.max_series_per_user", "limits hold for the whole cluster: max_global_series_per_user"},
		{"limits.max_series_per_metric", "limits hold for the whole cluster: max_global_series_per_metric"},
		{"ingester_client", "processes find the sizes of their messages themselves"},
		{"frontend_worker", "processes find each other by gossip"},
		{"query_range.results_cache", "frontend.results_cache says where answers are kept, if not in memory"},
		{"ruler_storage", "rules lie in the blocks' bucket, where the control plane has them too"},
		{"alertmanager_storage", "configurations and state lie in the blocks' bucket"},
		{"memberlist", "gossip needs no tuning"},
		{"ingest_storage", "there is no log of Kafka between distributors and ingesters"},
	}
}

// longest returns the row whose beginning fits path best.
func longest(rows [][2]string, path string) (row [2]string, ok bool) {
	for _, r := range rows {
		if (path == r[0] || strings.HasPrefix(path, r[0]+".")) && len(r[0]) >= len(row[0]) {
			row, ok = r, true
		}
	}
	return row, ok
}

// Conversion is what became of a foreign configuration.
type Conversion struct {
	Kept    []string `json:"kept" yaml:"kept"`       // paths as they were
	Moved   []string `json:"moved" yaml:"moved"`     // "there -> here"
	Dropped []string `json:"dropped" yaml:"dropped"` // "path: why"

	set    *config.Set
	fields map[string]*config.Field
	values map[string]setting // by our path
}

func newConversion() *Conversion {
	c := &Conversion{set: config.NewSet(), fields: map[string]*config.Field{}, values: map[string]setting{}}
	app.Declare(c.set)
	for _, f := range c.set.Fields() {
		c.fields[f.Path] = f
	}
	return c
}

// add takes over one setting if there is one like it. What is set to what is the default here anyway
// is taken over too: defaults may change.
func (c *Conversion) add(s setting) {
	if rest, ok := ofStore(s.path); ok {
		c.addStore(s, rest)
		return
	}
	to := s.path
	if row, ok := longest(moves(), s.path); ok && c.fields[s.path] == nil {
		if row[1] == "" {
			c.drop(s)
			return
		}
		to = row[1] + strings.TrimPrefix(s.path, row[0])
	}
	f := c.fields[to]
	if f == nil {
		c.drop(s)
		return
	}
	if len(f.Allowed) > 0 && s.node.Kind == yaml.ScalarNode && !slices.Contains(f.Allowed, s.node.Value) {
		c.Dropped = append(c.Dropped, fmt.Sprintf("%s: %q is not one of %s", s.path, s.node.Value, strings.Join(f.Allowed, ", ")))
		return
	}
	if to == s.path {
		c.Kept = append(c.Kept, s.path)
	} else {
		c.Moved = append(c.Moved, s.path+" -> "+to)
	}
	c.values[to] = s
}

func (c *Conversion) drop(s setting) {
	why := "there is no such setting"
	if row, ok := longest(unneeded(), s.path); ok {
		why = row[1]
	}
	c.Dropped = append(c.Dropped, s.path+": "+why)
}

// Document writes the settings that were taken over as our file.
func (c *Conversion) Document() (*yaml.Node, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range c.set.Fields() { // in the order of the reference
		s, ok := c.values[f.Path]
		if !ok {
			continue
		}
		at := root
		names := strings.Split(f.Path, ".")
		for _, name := range names[:len(names)-1] {
			at = child(at, name)
		}
		plain := *s.node
		plain.HeadComment, plain.LineComment, plain.FootComment = "", "", ""
		at.Content = append(at.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: names[len(names)-1]}, &plain)
	}
	return root, nil
}

func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	kid := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, kid)
	return kid
}

// ConvertYAML converts a configuration file of Mimir or Cortex.
func (c *Conversion) ConvertYAML(data []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	for _, s := range ringFirst(leaves(&doc, "")) {
		c.add(s)
	}
	return nil
}

// ConvertFlags converts a command line, one flag a line.
func (c *Conversion) ConvertFlags(text string) {
	by := map[string]*config.Field{}
	for _, f := range c.set.Fields() {
		by[f.Flag] = f
	}
	var stores []setting
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, has := strings.Cut(strings.TrimLeft(line, "-"), "=")
		if !has {
			value = "true"
		}
		s := setting{path: name, node: &yaml.Node{Kind: yaml.ScalarNode, Value: value}}
		if f := by[name]; f != nil {
			c.Kept = append(c.Kept, "-"+name)
			s.path = f.Path
			c.values[f.Path] = s
			continue
		}
		if path, ok := c.ofStoreFlag(name); ok {
			s.path = path
			stores = append(stores, s)
			continue
		}
		// Flags of Mimir and Cortex are mostly the paths of their files, with dashes.
		if row, ok := longest(moves(), strings.ReplaceAll(name, "-", "_")); ok && row[1] != "" {
			to := row[1] + strings.TrimPrefix(strings.ReplaceAll(name, "-", "_"), row[0])
			if c.fields[to] != nil {
				c.Moved = append(c.Moved, "-"+name+" -> "+to)
				c.values[to] = s
				continue
			}
		}
		c.Dropped = append(c.Dropped, "-"+name+": there is no such flag")
	}
	for _, s := range ringFirst(stores) {
		c.add(s)
	}
}

// ConvertOverrides takes over the limits of tenants that there are here, and notes the others.
func (c *Conversion) ConvertOverrides(data []byte) ([]byte, error) {
	known := map[string]bool{}
	for i := range limits.Table {
		known[limits.Table[i].Name] = true
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("the runtime file is no mapping")
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch name := root.Content[i].Value; name {
		case "overrides":
			c.trimTenants(root.Content[i+1], known)
		case "ingester_limits", "distributor_limits":
		case "multi_kv_config":
			c.Kept = append(c.Kept, name)
		default:
			c.Dropped = append(c.Dropped, name+": there is no such section of a runtime file")
			root.Content = slices.Delete(root.Content, i, i+2)
			i -= 2
		}
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return nil, err
	}
	return out, limits.Check("converted overrides", out)
}

func (c *Conversion) trimTenants(tenants *yaml.Node, known map[string]bool) {
	for i := 0; i+1 < len(tenants.Content); i += 2 {
		tenant, values := tenants.Content[i].Value, tenants.Content[i+1]
		if values.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(values.Content); j += 2 {
			name := values.Content[j].Value
			if known[name] || name == "<<" {
				c.Kept = append(c.Kept, "overrides."+tenant+"."+name)
				continue
			}
			c.drop(setting{path: "limits." + name})
			c.Dropped[len(c.Dropped)-1] = strings.Replace(c.Dropped[len(c.Dropped)-1], "limits.", "overrides."+tenant+".", 1)
			values.Content = slices.Delete(values.Content, j, j+2)
			j -= 2
		}
	}
}
