package limits

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// parse reads the text of a value of r and checks it.
func (r *Row) parse(text string) (any, error) {
	var x any
	var err error
	switch r.Default.(type) {
	case int:
		x, err = config.ParseInt(text)
	case float64:
		x, err = config.ParseFloat(text)
	case bool:
		x, err = config.ParseBool(text)
	case string:
		x = text
	case time.Duration:
		x, err = config.ParseDuration(text)
	case []string:
		x = config.ParseStrings(text)
	case Structured:
		err = config.ReadText(text, func(doc *strict.Doc, n *yaml.Node) (ok bool) {
			x, ok = r.shape(doc, n, "")
			return ok
		})
	}
	if err != nil {
		return nil, err
	}
	return x, r.check(x)
}

// read reads a value of r from a document. What is wrong is noted there, and ok is false.
func (r *Row) read(doc *strict.Doc, e strict.Entry, path string) (x any, ok bool) {
	if r.shape != nil {
		return r.shape(doc, e.Value, path)
	}
	if _, isList := r.Default.([]string); isList {
		if items, list, ok := doc.List(e.Value, path); list {
			return items, ok
		}
	}
	text, ok := doc.Text(e.Value, path, r.kind())
	if !ok {
		return nil, false
	}
	x, err := r.parse(text)
	if err != nil {
		doc.Problems.Add(doc.Where(e.Line), "%s: %v", path, err)
		return nil, false
	}
	return x, true
}

// kind names the type of r for people.
func (r *Row) kind() string {
	switch r.Default.(type) {
	case int:
		return "an integer"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case time.Duration:
		return "a duration"
	case []string:
		return "a list"
	case Structured:
		return "YAML"
	}
	return "text"
}

// format is the inverse of parse.
func format(x any) string {
	switch x := x.(type) {
	case int:
		return strconv.Itoa(x)
	case float64:
		return config.FormatFloat(x)
	case bool:
		return strconv.FormatBool(x)
	case time.Duration:
		return config.FormatDuration(x)
	case []string:
		return strings.Join(x, ",")
	case Structured:
		return config.FormatNode(x.Node())
	}
	return fmt.Sprint(x)
}

// node returns x as YAML.
func node(x any) *yaml.Node {
	switch x := x.(type) {
	case []string:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range x {
			n.Content = append(n.Content, node(item))
		}
		return n
	case Structured:
		return x.Node()
	case string, time.Duration:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: format(x)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: format(x)}
}

// jsonValue returns x as encoding/json should see it: durations are text.
func jsonValue(x any) any {
	switch x := x.(type) {
	case time.Duration:
		return config.FormatDuration(x)
	case []string:
		if x == nil {
			return []string{}
		}
	case Structured:
		if secret, ok := x.(interface{ Shown() Structured }); ok {
			return jsonValue(secret.Shown().Node())
		}
		return jsonValue(x.Node())
	case *yaml.Node:
		var plain any
		if err := x.Decode(&plain); err != nil {
			panic(fmt.Sprintf("BUG: a limit that cannot be read back: %v", err))
		}
		return plain
	}
	return x
}
