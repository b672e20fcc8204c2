package limits

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// RequestRule is about all requests of the read API that are like it in whatever it names.
type RequestRule struct {
	Path, Method string // empty: any
	Params       []ParamRule
}

// ParamRule is about the requests of which one value of a parameter is Value, or matches Regex.
type ParamRule struct {
	Name, Value string
	Regex       *regexp.Regexp // nil: it must be Value
}

// Matches says whether the rule is about a request.
func (r *RequestRule) Matches(method, path string, params url.Values) bool {
	if r.Path != "" && r.Path != path || r.Method != "" && r.Method != method {
		return false
	}
	for _, p := range r.Params {
		like := func(v string) bool { return p.Regex != nil && p.Regex.MatchString(v) || p.Regex == nil && p.Value == v }
		if !slices.ContainsFunc(params[p.Name], like) {
			return false
		}
	}
	return true
}

// RequestRules are rules in the order they were written in.
type RequestRules struct{ list []RequestRule }

// List returns the rules, which must not be changed.
func (q *RequestRules) List() []RequestRule { return q.list }

// Node is part of Structured.
func (q *RequestRules) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.SequenceNode}
	if len(q.list) == 0 {
		out.Style = yaml.FlowStyle
	}
	for _, r := range q.list {
		rule := &yaml.Node{Kind: yaml.MappingNode}
		if r.Path != "" {
			rule.Content = append(rule.Content, node("path"), node(r.Path))
		}
		if r.Method != "" {
			rule.Content = append(rule.Content, node("method"), node(r.Method))
		}
		if len(r.Params) > 0 {
			params := &yaml.Node{Kind: yaml.MappingNode}
			for _, p := range r.Params {
				one := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{node("value"), node(p.Value)}}
				if p.Regex != nil {
					one.Content = append(one.Content, node("is_regexp"), node(true))
				}
				params.Content = append(params.Content, node(p.Name), one)
			}
			rule.Content = append(rule.Content, node("query_params"), params)
		}
		out.Content = append(out.Content, rule)
	}
	return out
}

// readBlockedRequests reads a list of {path, method, query_params: {name: {value, is_regexp}}}.
func readBlockedRequests(doc *strict.Doc, n *yaml.Node, path string) (*RequestRules, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	out := &RequestRules{}
	for k, item := range items {
		at := path + "[" + strconv.Itoa(k) + "]"
		r, good := readRequestRule(doc, item, at)
		if good && r.Path == "" && r.Method == "" && len(r.Params) == 0 {
			doc.Problems.Add(doc.Where(item.Line), "%s: names no path, method or query_params, which would be all requests", at)
			good = false
		}
		ok = ok && good
		out.list = append(out.list, r)
	}
	return out, ok
}

func readRequestRule(doc *strict.Doc, item *yaml.Node, at string) (r RequestRule, ok bool) {
	ok = true
	for _, e := range doc.Entries(item, at) {
		good := true
		switch e.Key {
		case "path":
			r.Path, good = doc.Text(e.Value, at+".path", "text")
		case "method":
			r.Method, good = doc.Text(e.Value, at+".method", "text")
		case "query_params":
			for _, p := range doc.Entries(e.Value, at+".query_params") {
				rule, fine := readParamRule(doc, p, at+".query_params."+p.Key)
				r.Params, good = append(r.Params, rule), good && fine
			}
		default:
			doc.Problems.Add(doc.Where(e.Line), "%s: unknown key %q%s", at, e.Key, strict.Suggest(e.Key, []string{"path", "method", "query_params"}))
			good = false
		}
		ok = ok && good
	}
	return r, ok
}

func readParamRule(doc *strict.Doc, p strict.Entry, at string) (r ParamRule, ok bool) {
	r.Name, ok = p.Key, true
	isRegexp := false
	for _, e := range doc.Entries(p.Value, at) {
		text, good := doc.Text(e.Value, at+"."+e.Key, "text")
		fault := ""
		switch e.Key {
		case "value":
			r.Value = text
		case "is_regexp":
			var err error
			if isRegexp, err = strconv.ParseBool(text); err != nil {
				fault = strconv.Quote(text) + " is neither true nor false"
			}
		default:
			fault = "unknown key " + strconv.Quote(e.Key) + strict.Suggest(e.Key, []string{"value", "is_regexp"})
		}
		if good && fault != "" {
			doc.Problems.Add(doc.Where(e.Line), "%s: %s", at, fault)
			good = false
		}
		ok = ok && good
	}
	if isRegexp {
		var err error
		if r.Regex, err = regexp.Compile("^(?:" + r.Value + ")$"); err != nil {
			doc.Problems.Add(doc.Where(p.Line), "%s: value: %v", at, err)
			ok = false
		}
	}
	return r, ok
}
