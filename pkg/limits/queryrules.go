package limits

import (
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// QueryRule is one query, or all whose text a regular expression matches, and what an administrator
// says about them.
type QueryRule struct {
	Pattern string
	Regex   *regexp.Regexp // nil: the text must be Pattern
	Reason  string
	// Every is how often the query may be asked; 0: never.
	Every time.Duration
}

// Matches says whether the rule is about a query with one of texts.
func (r *QueryRule) Matches(texts ...string) bool {
	for _, t := range texts {
		if r.Regex != nil && r.Regex.MatchString(t) || r.Regex == nil && r.Pattern == t {
			return true
		}
	}
	return false
}

// Refusal is the error of a query that the rule blocks.
func (r *QueryRule) Refusal() error {
	reason := r.Reason
	if reason != "" {
		reason = "Reason: " + reason
	}
	return errs.WithID(errs.Invalid, "query-blocked", reason, "the request has been blocked by the cluster administrator")
}

// QueryRules are rules in the order they were written in.
type QueryRules struct{ list []QueryRule }

// List returns the rules, which must not be changed.
func (q *QueryRules) List() []QueryRule { return q.list }

// Node is part of Structured.
func (q *QueryRules) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.SequenceNode}
	if len(q.list) == 0 {
		out.Style = yaml.FlowStyle
	}
	for _, r := range q.list {
		rule := &yaml.Node{Kind: yaml.MappingNode}
		put := func(name string, value any) { rule.Content = append(rule.Content, node(name), node(value)) }
		if r.Every > 0 {
			put("query", r.Pattern)
			put("allowed_frequency", r.Every)
		} else {
			put("pattern", r.Pattern)
			if r.Regex != nil {
				put("regex", true)
			}
			if r.Reason != "" {
				put("reason", r.Reason)
			}
		}
		out.Content = append(out.Content, rule)
	}
	return out
}

// readBlockedQueries reads a list of {pattern, regex, reason}.
func readBlockedQueries(doc *strict.Doc, n *yaml.Node, path string) (*QueryRules, bool) {
	return readQueryRules(doc, n, path, func(r *QueryRule, key, text string) string {
		switch key {
		case "pattern":
			r.Pattern = text
		case "reason":
			r.Reason = text
		case "regex":
			if yes, err := strconv.ParseBool(text); err != nil {
				return strconv.Quote(text) + " is neither true nor false"
			} else if yes {
				r.Regex = new(regexp.Regexp)
			}
		default:
			return "unknown key " + strconv.Quote(key) + strict.Suggest(key, []string{"pattern", "regex", "reason"})
		}
		return ""
	})
}

// readLimitedQueries reads a list of {query, allowed_frequency}.
func readLimitedQueries(doc *strict.Doc, n *yaml.Node, path string) (*QueryRules, bool) {
	return readQueryRules(doc, n, path, func(r *QueryRule, key, text string) string {
		switch key {
		case "query":
			r.Pattern = text
		case "allowed_frequency":
			d, err := model.ParseDuration(text)
			if err != nil || d <= 0 {
				return strconv.Quote(text) + " is not a positive duration"
			}
			r.Every = time.Duration(d)
		default:
			return "unknown key " + strconv.Quote(key) + strict.Suggest(key, []string{"query", "allowed_frequency"})
		}
		return ""
	})
}

// readQueryRules reads a list of rules. set takes one key of a rule and says what is wrong with it.
func readQueryRules(doc *strict.Doc, n *yaml.Node, path string, set func(r *QueryRule, key, text string) string) (*QueryRules, bool) {
	items, ok := doc.Items(n, path)
	if !ok {
		return nil, false
	}
	out := &QueryRules{}
	for k, item := range items {
		at := path + "[" + strconv.Itoa(k) + "]"
		var r QueryRule
		for _, e := range doc.Entries(item, at) {
			text, good := doc.Text(e.Value, at+"."+e.Key, "text")
			if fault := set(&r, e.Key, text); good && fault != "" {
				doc.Problems.Add(doc.Where(e.Line), "%s: %s", at, fault)
				good = false
			}
			ok = ok && good
		}
		if r.Regex != nil {
			var err error
			if r.Regex, err = regexp.Compile(r.Pattern); err != nil {
				doc.Problems.Add(doc.Where(item.Line), "%s: pattern: %v", at, err)
				ok = false
			}
		}
		out.list = append(out.list, r)
	}
	return out, ok
}
