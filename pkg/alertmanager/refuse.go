package alertmanager

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/sigv4"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// refuseServerSettings refuses what would make the server read its own files, send through proxies
// of a tenant's choice or go around the firewall of receivers. Errors: Invalid.
func refuseServerSettings(text string, conf *config.Config) error {
	w := &walker{}
	w.walk(reflect.ValueOf(conf), nil)
	if w.why == "" {
		return nil
	}
	return errs.New(errs.Invalid, "alertmanager_config: %s%s is not allowed: %s", lineOf(document(text), w.path...), dotted(w.path), w.why)
}

// walker looks for the first setting of a configuration that a tenant may not use.
type walker struct {
	path []string
	why  string
}

var sigV4Type = reflect.TypeFor[sigv4.SigV4Config]()

func (w *walker) walk(v reflect.Value, at []string) {
	if w.why != "" {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			w.walk(v.Elem(), at)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			w.walk(v.Index(i), append(at[:len(at):len(at)], strconv.Itoa(i)))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			w.walk(v.MapIndex(k), append(at[:len(at):len(at)], fmt.Sprint(k.Interface())))
		}
	case reflect.Struct:
		w.fields(v, at)
	}
}

func (w *walker) fields(v reflect.Value, at []string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag := f.Tag.Get("yaml")
		name, options, _ := strings.Cut(tag, ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		below := at
		if !strings.Contains(options, "inline") {
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			below = append(at[:len(at):len(at)], name)
			if why := forbidden(v.Type(), name); why != "" && !v.Field(i).IsZero() {
				w.path, w.why = below, why
				return
			}
			if v.Type() == sigV4Type && name == "region" && !isRegion(v.Field(i).String()) {
				w.path, w.why = below, "it is no name of a region, and would become part of an address"
				return
			}
		}
		w.walk(v.Field(i), below)
	}
}

// forbidden says why the setting name of a type may not be used; empty: it may.
func forbidden(of reflect.Type, name string) string {
	switch {
	case strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_files") || name == "files":
		return "it names a file of the server"
	case strings.HasSuffix(name, "_ref"):
		return "it names a secret of the server"
	case strings.HasPrefix(name, "proxy_") || name == "no_proxy":
		return "receivers are reached without proxies"
	case of == sigV4Type && name == "profile":
		return "it names a file of the server"
	case name == "use_aws_http_client":
		return "it goes around the checks of addresses"
	}
	return ""
}

// isRegion says whether s can be a label of a host's name.
func isRegion(s string) bool {
	return len(s) < 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// dotted is a path as people write it: receivers[0].sns_configs[0].api_url.
func dotted(path []string) string {
	var b strings.Builder
	for _, part := range path {
		switch {
		case isIndex(part):
			b.WriteString("[" + part + "]")
		case b.Len() > 0:
			b.WriteString("." + part)
		default:
			b.WriteString(part)
		}
	}
	return b.String()
}

func isIndex(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}
