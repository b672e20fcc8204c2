package iam

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The oracle evaluates documents as the rules read, from their JSON, with regular expressions and without
// anything that the evaluator prepares.

// rawDoc is a document as maps.
type rawDoc = map[string]any

func items(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return out
	}
	return []string{fmt.Sprint(v)}
}

// slowGlob makes a regular expression of a pattern, with variables as literal text.
func slowGlob(p string, keys bag, variables bool) (string, bool) {
	var b strings.Builder
	for p != "" {
		if variables && strings.HasPrefix(p, "${") && strings.Contains(p, "}") {
			name, rest, _ := strings.Cut(p[2:], "}")
			p = rest
			if name == "*" || name == "?" || name == "$" {
				b.WriteString(regexp.QuoteMeta(name))
				continue
			}
			key, def, has := strings.Cut(name, ",")
			v := keys[strings.ToLower(strings.TrimSpace(key))]
			switch {
			case len(v) == 1:
				b.WriteString(regexp.QuoteMeta(v[0]))
			case len(v) == 0 && has:
				b.WriteString(regexp.QuoteMeta(strings.Trim(strings.TrimSpace(def), "'")))
			default:
				return "", false
			}
			continue
		}
		switch p[0] {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(p[:1]))
		}
		p = p[1:]
	}
	return "(?s)^" + b.String() + "$", true
}

func slowMatch(p, s string, keys bag, variables bool) bool {
	re, ok := slowGlob(p, keys, variables)
	return ok && regexp.MustCompile(re).MatchString(s)
}

// slowText is the text of a value with its variables replaced.
func slowText(p string, keys bag, variables bool) (string, bool) {
	if !variables {
		return p, true
	}
	ok := true
	out := regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllStringFunc(p, func(m string) string {
		name := m[2 : len(m)-1]
		if name == "*" || name == "?" || name == "$" {
			return name
		}
		key, def, has := strings.Cut(name, ",")
		v := keys[strings.ToLower(strings.TrimSpace(key))]
		if len(v) == 1 {
			return v[0]
		}
		ok = ok && len(v) == 0 && has
		return strings.Trim(strings.TrimSpace(def), "'")
	})
	return out, ok
}

func slowDate(s string) (time.Time, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Unix(int64(n), 0), nil
	}
	return time.Parse(time.RFC3339, s)
}

func slowOne(operator, got, want string, keys bag, variables bool) bool {
	isText := strings.HasPrefix(operator, "String") || strings.HasPrefix(operator, "Arn")
	text, ok := slowText(want, keys, variables && isText)
	if !ok {
		return false
	}
	a, err1 := strconv.ParseFloat(got, 64)
	b, err2 := strconv.ParseFloat(text, 64)
	numbers := err1 == nil && err2 == nil
	at, err1 := slowDate(got)
	bt, err2 := slowDate(text)
	dates := err1 == nil && err2 == nil
	switch operator {
	case "StringEquals":
		return got == text
	case "StringEqualsIgnoreCase", "Bool":
		return strings.EqualFold(got, text)
	case "StringLike":
		return slowMatch(want, got, keys, variables)
	case "NumericEquals":
		return numbers && a == b
	case "NumericLessThan":
		return numbers && a < b
	case "NumericGreaterThanEquals":
		return numbers && a >= b
	case "DateLessThan":
		return dates && at.Before(bt)
	case "DateGreaterThanEquals":
		return dates && !at.Before(bt)
	case "IpAddress":
		_, network, err := net.ParseCIDR(text)
		return err == nil && network.Contains(net.ParseIP(got))
	}
	panic(operator)
}

func slowCondition(operator, key string, wants []string, keys bag, variables bool) bool {
	set, rest, ok := strings.Cut(operator, ":")
	if !ok {
		set, rest = "", operator
	}
	name, ifExists := strings.CutSuffix(rest, "IfExists")
	got, present := keys[strings.ToLower(key)]
	if name == "Null" {
		for _, w := range wants {
			if w == strconv.FormatBool(!present) {
				return true
			}
		}
		return false
	}
	negated := false
	for _, n := range []string{"StringNotEquals", "StringNotLike", "StringNotEqualsIgnoreCase", "NumericNotEquals", "NotIpAddress"} {
		if name == n {
			negated, name = true, strings.Replace(n, "Not", "", 1)
		}
	}
	if !present || len(got) == 0 {
		return ifExists || set == "ForAllValues" || negated && set == ""
	}
	fits := func(g string) bool {
		any := false
		for _, w := range wants {
			any = any || slowOne(name, g, w, keys, variables)
		}
		return any != negated
	}
	all, some := true, false
	for _, g := range got {
		all, some = all && fits(g), some || fits(g)
	}
	if set == "ForAllValues" || set == "" && negated {
		return all
	}
	return some
}

func slowApplies(s rawDoc, action, resource string, keys bag, variables bool) bool {
	matches := func(patterns []string, text string, vars, fold bool) bool {
		for _, p := range patterns {
			if fold {
				p, text = strings.ToLower(p), strings.ToLower(text)
			}
			if slowMatch(p, text, keys, vars) {
				return true
			}
		}
		return false
	}
	if a, ok := s["Action"]; ok && !matches(items(a), action, false, true) {
		return false
	}
	if a, ok := s["NotAction"]; ok && matches(items(a), action, false, true) {
		return false
	}
	if r, ok := s["Resource"]; ok && !matches(items(r), resource, variables, false) {
		return false
	}
	if r, ok := s["NotResource"]; ok && matches(items(r), resource, variables, false) {
		return false
	}
	conditions, _ := s["Condition"].(rawDoc)
	for operator, byKey := range conditions {
		for key, wants := range byKey.(rawDoc) {
			if !slowCondition(operator, key, items(wants), keys, variables) {
				return false
			}
		}
	}
	return true
}

// slow returns allowed and explicitly denied.
func slow(docs []rawDoc, action, resource string, keys bag) (allowed, denied bool) {
	for _, d := range docs {
		statements, isList := d["Statement"].([]any)
		if !isList {
			statements = []any{d["Statement"]}
		}
		for _, one := range statements {
			s := one.(rawDoc)
			if !slowApplies(s, action, resource, keys, d["Version"] == "2012-10-17") {
				continue
			}
			if s["Effect"] == "Deny" {
				return false, true
			}
			allowed = true
		}
	}
	return allowed, false
}

// dice makes random documents and requests out of few words, so that they often meet.
type dice struct{ *rand.Rand }

func (d dice) pick(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) some(words ...string) any {
	if d.IntN(2) == 0 {
		return d.pick(words...)
	}
	out := []any{}
	for range 1 + d.IntN(3) {
		out = append(out, d.pick(words...))
	}
	return out
}

func (d dice) condition() rawDoc {
	out := rawDoc{}
	for range d.IntN(3) {
		operator := d.pick("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase",
			"NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericGreaterThanEquals", "DateLessThan", "DateGreaterThanEquals", "Bool", "IpAddress", "NotIpAddress", "Null")
		if operator != "Null" {
			operator = d.pick("", "", "", "ForAnyValue:", "ForAllValues:") + operator + d.pick("", "", "IfExists")
		}
		out[operator] = rawDoc{d.pick("aws:SourceIp", "aws:ResourceTag/team", "aws:TagKeys", "n", "t", "missing"): d.some("blue", "BLUE", "b*", "?lue", "5", "7.5",
			"true", "false", "10.0.0.0/8", "192.0.2.0/24", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "${aws:username}", "${missing, 'blue'}", "${*}", "*")}
	}
	return out
}

func (d dice) document() rawDoc {
	statements := []any{}
	for range 1 + d.IntN(3) {
		s := rawDoc{"Effect": d.pick("Allow", "Allow", "Deny")}
		s[d.pick("Action", "Action", "Action", "NotAction")] = d.some("*", "aps:*", "aps:Query*", "APS:queryMetrics", "aps:RemoteWrite", "aps:?emote*", "amphora:Admin")
		s[d.pick("Resource", "Resource", "Resource", "NotResource")] = d.some("*", ws1, "arn:aws:aps:*:*:workspace/*", "arn:*/ws-?", "arn:aws:aps:us-east-1:123456789012:workspace/${aws:username}", "${*}", "${missing,'*'}", "")
		if c := d.condition(); len(c) > 0 {
			s["Condition"] = c
		}
		statements = append(statements, s)
	}
	out := rawDoc{"Version": d.pick("2012-10-17", "2012-10-17", "2008-10-17")}
	if out["Statement"] = any(statements); len(statements) == 1 && d.IntN(2) == 0 {
		out["Statement"] = statements[0]
	}
	return out
}

func (d dice) keys() bag {
	out := bag{}
	for key, words := range map[string][]string{
		"aws:sourceip": {"10.1.2.3", "192.0.2.9", "2001:db8::1"}, "aws:resourcetag/team": {"blue", "BLUE", "red", "*"}, "n": {"5", "7.5", "x"},
		"t": {"2026-06-01T00:00:00Z", "true"}, "aws:username": {"ws-1", "blue", "*"},
	} {
		if d.IntN(3) > 0 {
			out[key] = []string{d.pick(words...)}
		}
	}
	if d.IntN(3) > 0 {
		for range d.IntN(4) {
			out["aws:tagkeys"] = append(out["aws:tagkeys"], d.pick("blue", "5", "true"))
		}
	}
	return out
}

// TestEvaluationAgreesWithASlowOracle compares decisions about random documents and requests.
func TestEvaluationAgreesWithASlowOracle(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, 2))}
	pairs, perDocument := 100_000, 20
	if testing.Short() {
		pairs = 5_000
	}
	counts := map[[2]bool]int{}
	for range pairs / perDocument {
		var docs []rawDoc
		p := &Principal{Account: "123456789012"}
		for range 1 + d.IntN(2) {
			doc := d.document()
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, doc)
			p.Policies = append(p.Policies, policy(t, IdentityPolicy, string(text)))
		}
		for range perDocument {
			keys := d.keys()
			action, resource := d.pick("aps:QueryMetrics", "aps:RemoteWrite", "amphora:Admin", "APS:REMOTEWRITE"), d.pick(ws1, ws1+"0", "arn:aws:aps:eu-west-1:1:workspace/blue", "*", "")
			allowed, denied := slow(docs, action, resource, keys)
			got := Evaluate(&Request{Principal: p, Action: action, Resource: resource, Keys: keys})
			if got.Allowed != allowed || got.Explicit != denied {
				text, _ := json.Marshal(docs)
				t.Fatalf("%s\n%s on %q with %v: %+v, the oracle says allowed %v, denied %v", text, action, resource, keys, got, allowed, denied)
			}
			counts[[2]bool{allowed, denied}]++
		}
	}
	if len(counts) < 3 {
		t.Fatalf("the dice are loaded: %v", counts)
	}
	t.Logf("allowed, denied: %v", counts)
}
