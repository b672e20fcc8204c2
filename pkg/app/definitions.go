package app

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const rulesDocs = "rules/"

// rulesKey is where the document of a namespace is.
func rulesKey(id tenant.ID, namespace string) (string, error) {
	name := url.PathEscape(namespace)
	if strings.HasPrefix(name, ".") {
		name = "%2E" + name[1:]
	}
	if len(name) > 240 {
		return "", errs.New(errs.Invalid, "the name of the namespace is longer than 240 bytes")
	}
	return rulesDocs + string(id) + "/" + name, nil
}

// rulesName undoes rulesKey.
func rulesName(key string) (string, bool) {
	name, err := url.PathUnescape(key[strings.LastIndexByte(key, '/')+1:])
	return name, err == nil && name != ""
}

func definitionKey(id tenant.ID) string { return "alerts/" + string(id) }

func (a *App) checkRules(_ context.Context, _ tenant.ID, _ string, data []byte) error {
	_, faults := rulefmt.Parse(data, false, model.UTF8Validation, parser.NewParser(parser.Options{}), a.log)
	return errs.Wrap(errs.Invalid, errors.Join(faults...))
}

func (a *App) checkDefinition(_ tenant.ID, data []byte) error {
	var d struct {
		Templates map[string]string `yaml:"template_files"`
		Config    string            `yaml:"alertmanager_config"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	return errs.Wrap(errs.Invalid, dec.Decode(&d))
}
