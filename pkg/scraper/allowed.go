package scraper

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// shape is which keys a mapping may have. What is not named is refused, so that a later version of
// Prometheus does not open a door by itself.
type shape struct {
	keys map[string]*shape // nil shape: any text or structure without keys of its own to check
	each *shape            // of the elements of a list or the values of a mapping with names of the tenant's own
}

func keys(names string, more map[string]*shape) *shape {
	s := &shape{keys: map[string]*shape{}}
	for n := range strings.FieldsSeq(names) {
		s.keys[n] = nil
	}
	for n, x := range more {
		s.keys[n] = x
	}
	return s
}

func list(of *shape) *shape { return &shape{each: of} }

// client is the part of a mapping that says how an HTTP client connects.
func client(names string, more map[string]*shape) *shape {
	s := keys(names+" bearer_token follow_redirects enable_http2", more)
	s.keys["basic_auth"] = keys("username password", nil)
	s.keys["authorization"] = keys("type credentials", nil)
	s.keys["tls_config"] = keys("ca cert key server_name insecure_skip_verify min_version max_version", nil)
	s.keys["http_headers"] = list(keys("values secrets", nil))
	return s
}

const sizes = " body_size_limit sample_limit target_limit label_limit label_name_length_limit label_value_length_limit keep_dropped_targets" +
	" metric_name_validation_scheme metric_name_escaping_scheme scrape_native_histograms convert_classic_histograms_to_nhcb always_scrape_classic_histograms" +
	" extra_scrape_metrics scrape_interval scrape_timeout scrape_protocols"

// rule is a rule of relabelling.
func rule() *shape {
	return keys("source_labels separator regex modulus target_label replacement action", nil)
}

// topLevel is what a configuration may hold.
func topLevel() *shape {
	job := client("job_name honor_labels honor_timestamps track_timestamps_staleness params fallback_scrape_protocol metrics_path scheme enable_compression"+
		" native_histogram_bucket_limit native_histogram_min_bucket_factor"+sizes, map[string]*shape{
		"relabel_configs":        list(rule()),
		"metric_relabel_configs": list(rule()),
		"static_configs":         list(keys("targets labels", nil)),
		"http_sd_configs":        list(client("url refresh_interval", nil)),
		"dns_sd_configs":         list(keys("names refresh_interval type port", nil)),
		"kubernetes_sd_configs":  list(client("api_server role namespaces selectors attach_metadata", nil)),
	})
	return keys("", map[string]*shape{
		"global":         keys("evaluation_interval"+sizes, map[string]*shape{"external_labels": {each: external()}}),
		"scrape_configs": list(job),
	})
}

// external marks values in which a variable of the environment would be put.
func external() *shape { return &shape{} }

// allow says which key of n the shape s does not have. Errors: Invalid.
func allow(n *yaml.Node, s *shape, at string) error {
	if n.Kind == yaml.AliasNode {
		return errs.New(errs.Invalid, "line %d: aliases are not allowed", n.Line)
	}
	if s != nil && s.keys == nil && s.each == nil && strings.Contains(strings.ReplaceAll(n.Value, "$$", ""), "$") {
		return errs.New(errs.Invalid, "line %d: %s: variables of the environment are not put in; $$ is a dollar sign", n.Line, at)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, e := range n.Content {
			inner := s
			if s != nil && s.each != nil {
				inner = s.each
			}
			if err := allow(e, inner, at); err != nil {
				return err
			}
		}
	case yaml.MappingNode:
		return allowKeys(n, s, at)
	}
	return nil
}

func allowKeys(n *yaml.Node, s *shape, at string) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		where := strings.TrimPrefix(at+"."+key.Value, ".")
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return errs.New(errs.Invalid, "line %d: keys are names", key.Line)
		}
		var inner *shape
		switch {
		case s == nil:
		case s.keys != nil:
			x, known := s.keys[key.Value]
			if !known {
				return errs.New(errs.Invalid, "line %d: %s is not allowed in the configuration of a scraper", key.Line, where)
			}
			inner = x
		default:
			inner = s.each
		}
		if err := allow(value, inner, where); err != nil {
			return err
		}
	}
	return nil
}
