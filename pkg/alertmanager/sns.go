package alertmanager

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/config"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// onlySNS checks what Amazon's service demands of a configuration. Errors: Invalid.
func onlySNS(text string, conf *config.Config) error {
	root := document(text)
	wrong := func(path []string, why string) error {
		return errs.New(errs.Invalid, "alertmanager_config: %s%s %s", lineOf(root, path...), dotted(path), why)
	}
	for i := range conf.Receivers {
		at := []string{"receivers", strconv.Itoa(i)}
		v := reflect.ValueOf(conf.Receivers[i])
		for f := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(f).Tag.Get("yaml"), ",")
			if strings.HasSuffix(name, "_configs") && name != "sns_configs" && v.Field(f).Len() > 0 {
				return wrong(append(at, name), "is not allowed: receivers have sns_configs only")
			}
		}
		for j, c := range conf.Receivers[i].SNSConfigs {
			here := append(at[:2:2], "sns_configs", strconv.Itoa(j))
			for _, name := range []string{"api_url", "http_config"} {
				if find(root, append(here, name)...) != nil {
					return wrong(append(here, name), "is not allowed")
				}
			}
			if c.Sigv4.Region == "" {
				return wrong(append(here, "sigv4"), "has no region")
			}
			if targets(c) != 1 {
				return wrong(here, "must have exactly one of topic_arn, target_arn and phone_number")
			}
		}
	}
	return nil
}

// targets is how many targets a configuration names. Upstream's own check lets three pass.
func targets(c *config.SNSConfig) int {
	n := 0
	for _, t := range []string{c.TopicARN, c.TargetARN, c.PhoneNumber} {
		if t != "" {
			n++
		}
	}
	return n
}

// tolerate rewrites what Amazon's guide shows and upstream does not read: templates below global,
// and sns_config for a single one. Lines move only if something was rewritten.
func tolerate(text string) (string, error) {
	root := document(text)
	changed := false
	if global := find(root, "global"); global != nil && global.Kind == yaml.MappingNode && find(root, "templates") == nil {
		for i := 0; i+1 < len(global.Content); i += 2 {
			if global.Content[i].Value != "templates" {
				continue
			}
			root.Content = append(root.Content, global.Content[i], global.Content[i+1])
			global.Content = append(global.Content[:i:i], global.Content[i+2:]...)
			changed = true
			break
		}
	}
	if receivers := find(root, "receivers"); receivers != nil {
		for _, r := range receivers.Content {
			for i := 0; r.Kind == yaml.MappingNode && i+1 < len(r.Content); i += 2 {
				if r.Content[i].Value == "sns_config" && r.Content[i+1].Kind == yaml.MappingNode {
					r.Content[i].Value = "sns_configs"
					r.Content[i+1] = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{r.Content[i+1]}}
					changed = true
				}
			}
		}
	}
	if !changed {
		return text, nil
	}
	out, err := yaml.Marshal(root)
	if err != nil {
		return "", errs.New(errs.Invalid, "alertmanager_config: %w", err)
	}
	return string(out), nil
}
