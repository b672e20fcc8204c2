package iam

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Keys answers what a request says about the keys of conditions. Names are in lower case. ok is false
// for a key that the request does not have.
type Keys interface {
	Values(key string) (values []string, ok bool)
}

// condition is one operator with one key.
type condition struct {
	key      string
	negated  bool
	ifExists bool
	set      string // "", forany or forall
	null     bool   // tests for presence only
	values   []pattern
	holds    compare
}

// compare says whether the value of a request fits a value of a policy.
type compare func(got string, want glob) bool

// operators are the positive ones; those with Not are made of them.
func operators() map[string]compare {
	return map[string]compare{
		"StringEquals":             func(got string, want glob) bool { return got == want.text() },
		"StringEqualsIgnoreCase":   func(got string, want glob) bool { return strings.EqualFold(got, want.text()) },
		"StringLike":               func(got string, want glob) bool { return want.matches(got) },
		"ArnEquals":                func(got string, want glob) bool { return want.matchesARN(got) },
		"ArnLike":                  func(got string, want glob) bool { return want.matchesARN(got) },
		"NumericEquals":            numeric(func(a, b float64) bool { return a == b }),
		"NumericLessThan":          numeric(func(a, b float64) bool { return a < b }),
		"NumericLessThanEquals":    numeric(func(a, b float64) bool { return a <= b }),
		"NumericGreaterThan":       numeric(func(a, b float64) bool { return a > b }),
		"NumericGreaterThanEquals": numeric(func(a, b float64) bool { return a >= b }),
		"DateEquals":               date(func(c int) bool { return c == 0 }),
		"DateLessThan":             date(func(c int) bool { return c < 0 }),
		"DateLessThanEquals":       date(func(c int) bool { return c <= 0 }),
		"DateGreaterThan":          date(func(c int) bool { return c > 0 }),
		"DateGreaterThanEquals":    date(func(c int) bool { return c >= 0 }),
		"Bool":                     func(got string, want glob) bool { return strings.EqualFold(got, want.text()) },
		"IpAddress":                inNetwork,
	}
}

// negations names the operators that hold where another does not.
func negations() map[string]string {
	return map[string]string{
		"StringNotEquals": "StringEquals", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "StringNotLike": "StringLike",
		"ArnNotEquals": "ArnEquals", "ArnNotLike": "ArnLike", "NumericNotEquals": "NumericEquals", "DateNotEquals": "DateEquals",
		"NotIpAddress": "IpAddress",
	}
}

func newCondition(operator, key string, values []string, variables bool) (condition, error) {
	c := condition{key: strings.ToLower(key)}
	name := operator
	if prefix, rest, ok := strings.Cut(name, ":"); ok {
		switch prefix {
		case "ForAnyValue":
			c.set = "forany"
		case "ForAllValues":
			c.set = "forall"
		default:
			return c, fmt.Errorf("has the unknown condition operator %q", operator)
		}
		name = rest
	}
	if rest, ok := strings.CutSuffix(name, "IfExists"); ok {
		c.ifExists, name = true, rest
	}
	if name == "Null" {
		c.null = true
	} else {
		if positive, ok := negations()[name]; ok {
			c.negated, name = true, positive
		}
		if c.holds = operators()[name]; c.holds == nil {
			return c, fmt.Errorf("has the unknown condition operator %q", operator)
		}
	}
	if len(values) == 0 {
		return c, fmt.Errorf("has a condition on %s without a value", key)
	}
	variables = variables && (strings.HasPrefix(name, "String") || strings.HasPrefix(name, "Arn"))
	for _, v := range values {
		c.values = append(c.values, compile(v, variables))
	}
	return c, nil
}

// met says whether the request meets c.
func (c *condition) met(keys Keys) bool {
	values, ok := keys.Values(c.key)
	if c.null {
		return c.anyOf(strconv.FormatBool(!ok), keys, func(got string, want glob) bool { return strings.EqualFold(got, want.text()) })
	}
	if !ok || len(values) == 0 {
		return c.ifExists || c.set == "forall" || c.negated && c.set == ""
	}
	fits := 0
	for _, v := range values {
		if c.anyOf(v, keys, c.holds) != c.negated {
			fits++
		}
	}
	if c.set == "forall" || c.negated && c.set == "" {
		return fits == len(values)
	}
	return fits > 0
}

func (c *condition) anyOf(got string, keys Keys, holds compare) bool {
	for i := range c.values {
		if want, ok := c.values[i].expand(keys); ok && holds(got, want) {
			return true
		}
	}
	return false
}

func numeric(holds func(a, b float64) bool) compare {
	return func(got string, want glob) bool {
		a, err1 := strconv.ParseFloat(got, 64)
		b, err2 := strconv.ParseFloat(want.text(), 64)
		return err1 == nil && err2 == nil && holds(a, b)
	}
}

func date(holds func(c int) bool) compare {
	return func(got string, want glob) bool {
		a, ok1 := parseDate(got)
		b, ok2 := parseDate(want.text())
		return ok1 && ok2 && holds(a.Compare(b))
	}
}

// parseDate takes ISO 8601 and seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func inNetwork(got string, want glob) bool {
	ip, err := netip.ParseAddr(got)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	text := want.text()
	if one, err := netip.ParseAddr(text); err == nil {
		return one.Unmap() == ip
	}
	network, err := netip.ParsePrefix(text)
	return err == nil && network.Contains(ip)
}
