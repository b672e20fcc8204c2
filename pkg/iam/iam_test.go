package iam

import (
	"strings"
	"testing"
)

// bag is the keys of a request.
type bag map[string][]string

func (b bag) Values(key string) ([]string, bool) { v, ok := b[key]; return v, ok }

func policy(t testing.TB, kind Kind, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy(kind, []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

const ws1 = "arn:aws:aps:us-east-1:123456789012:workspace/ws-1"

func alice(t testing.TB, policies ...string) *Principal {
	p := &Principal{Account: "123456789012", ARN: "arn:aws:iam::123456789012:user/alice", Type: TypeUser, Name: "alice"}
	for _, text := range policies {
		p.Policies = append(p.Policies, policy(t, IdentityPolicy, text))
	}
	return p
}

func statementOf(body string) string {
	return `{"Version":"2012-10-17","Statement":[{` + body + `}]}`
}

func TestWhatDeniesWins(t *testing.T) {
	allow := statementOf(`"Effect":"Allow","Action":"aps:*","Resource":"*"`)
	deny := statementOf(`"Effect":"Deny","Action":"aps:Query*","Resource":"arn:aws:aps:*:*:workspace/ws-1"`)
	for _, c := range []struct {
		policies         []string
		action, resource string
		allowed, denied  bool
	}{
		{nil, "aps:QueryMetrics", ws1, false, false},
		{[]string{allow}, "aps:QueryMetrics", ws1, true, false},
		{[]string{allow}, "APS:querymetrics", ws1, true, false},
		{[]string{allow}, "amphora:Admin", ws1, false, false},
		{[]string{allow, deny}, "aps:QueryMetrics", ws1, false, true},
		{[]string{deny, allow}, "aps:QueryMetrics", ws1 + "2", true, false},
		{[]string{allow, deny}, "aps:RemoteWrite", ws1, true, false},
	} {
		d := Evaluate(&Request{Principal: alice(t, c.policies...), Action: c.action, Resource: c.resource, Keys: bag{}})
		if d.Allowed != c.allowed || d.Explicit != c.denied {
			t.Errorf("%v %s %s: %+v", c.policies, c.action, c.resource, d)
		}
	}
}

func TestBoundariesAndSessionsOnlyTakeAway(t *testing.T) {
	p := alice(t, statementOf(`"Effect":"Allow","Action":"*","Resource":"*"`))
	p.Boundary = policy(t, IdentityPolicy, Managed("AmazonPrometheusQueryAccess"))
	r := &Request{Principal: p, Action: "aps:QueryMetrics", Resource: ws1, Keys: bag{}}
	if !Evaluate(r).Allowed {
		t.Error("within the boundary: denied")
	}
	r.Action = "aps:RemoteWrite"
	if Evaluate(r).Allowed {
		t.Error("beyond the boundary: allowed")
	}
	p.Boundary, r.Action = nil, "aps:QueryMetrics"
	p.Sessions = []*Policy{policy(t, IdentityPolicy, Managed("AmazonPrometheusRemoteWriteAccess"))}
	if Evaluate(r).Allowed {
		t.Error("beyond the session: allowed")
	}
}

func TestOtherAccountsNeedBothSides(t *testing.T) {
	open := policy(t, ResourcePolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"aps:*","Resource":"*"}}`)
	r := &Request{Principal: alice(t), Action: "aps:QueryMetrics", Resource: ws1, Account: "999999999999", Policy: open, Keys: bag{}}
	if Evaluate(r).Allowed {
		t.Error("allowed by the resource alone")
	}
	r.Principal = alice(t, Managed("AmazonPrometheusQueryAccess"))
	if !Evaluate(r).Allowed {
		t.Error("denied although both allow")
	}
	r.Policy = nil
	if Evaluate(r).Allowed {
		t.Error("allowed by the caller's account alone")
	}
	root := &Principal{Account: "123456789012", Root: true}
	if Evaluate(&Request{Principal: root, Action: "a:b", Resource: ws1, Account: "999999999999", Keys: bag{}}).Allowed {
		t.Error("root of another account is allowed")
	}
}

func TestSelectorsUniteAndIntersect(t *testing.T) {
	sel := func(s string) string {
		return statementOf(`"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*","Condition":{"StringEquals":{"amphora:LabelSelector":"` + s + `"}}`)
	}
	r := &Request{Principal: alice(t, sel("{a=1}"), sel("{b=1}")), Action: "aps:QueryMetrics", Resource: ws1, Keys: bag{}}
	if d := Evaluate(r); !d.Allowed || len(d.Selectors) != 1 || strings.Join(d.Selectors[0], " ") != "{a=1} {b=1}" {
		t.Errorf("two statements: %+v", d)
	}
	r.Principal.Boundary = policy(t, IdentityPolicy, sel("{c=1}"))
	if d := Evaluate(r); len(d.Selectors) != 2 {
		t.Errorf("with a boundary: %+v", d)
	}
	r.Principal = alice(t, sel("{a=1}"), statementOf(`"Effect":"Allow","Action":"aps:*","Resource":"*"`))
	if d := Evaluate(r); !d.Allowed || d.Selectors != nil {
		t.Errorf("one that allows all series: %+v", d)
	}
	if _, err := ParsePolicy(IdentityPolicy, []byte(strings.Replace(sel("{a=1}"), "Allow", "Deny", 1))); err == nil {
		t.Error("a selector in a statement that denies is taken")
	}
}

func TestConditions(t *testing.T) {
	keys := bag{
		"aws:sourceip": {"10.1.2.3"}, "aws:resourcetag/team": {"blue"}, "aws:tagkeys": {"a", "b"},
		"aws:currenttime": {"2026-01-02T03:04:05Z"}, "n": {"5"}, "aws:securetransport": {"true"}, "aws:username": {"a*e"},
		"arn": {"arn:aws:iam::1:role/x:y"},
	}
	for text, want := range map[string]bool{
		`"StringEquals":{"aws:ResourceTag/team":["red","blue"]}`:                 true,
		`"StringEquals":{"aws:ResourceTag/team":"Blue"}`:                         false,
		`"StringEqualsIgnoreCase":{"aws:ResourceTag/team":"Blue"}`:               true,
		`"StringNotEquals":{"aws:ResourceTag/team":["red","blue"]}`:              false,
		`"StringNotEquals":{"aws:ResourceTag/other":"x"}`:                        true,
		`"StringEquals":{"aws:ResourceTag/other":"x"}`:                           false,
		`"StringEqualsIfExists":{"aws:ResourceTag/other":"x"}`:                   true,
		`"StringLike":{"aws:ResourceTag/team":"b?u*"}`:                           true,
		`"StringLike":{"aws:username":"${aws:username}"}`:                        true,
		`"StringEquals":{"aws:ResourceTag/team":"${nothing, 'blue'}"}`:           true,
		`"StringEquals":{"aws:ResourceTag/team":"${nothing}"}`:                   false,
		`"IpAddress":{"aws:SourceIp":["192.0.2.0/24","10.0.0.0/8"]}`:             true,
		`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`:                           false,
		`"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}`:           true,
		`"DateLessThan":{"aws:CurrentTime":"2026-01-01"}`:                        false,
		`"NumericLessThanEquals":{"n":5}`:                                        true,
		`"NumericGreaterThan":{"n":"5"}`:                                         false,
		`"Bool":{"aws:SecureTransport":true}`:                                    true,
		`"Null":{"aws:ResourceTag/other":"true","aws:ResourceTag/team":"false"}`: true,
		`"Null":{"aws:ResourceTag/team":true}`:                                   false,
		`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b","c"]}`:              true,
		`"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}`:                      false,
		`"ForAllValues:StringEquals":{"missing":["a"]}`:                          true,
		`"ForAnyValue:StringEquals":{"aws:TagKeys":["b"]}`:                       true,
		`"ForAnyValue:StringEquals":{"missing":["b"]}`:                           false,
		`"ArnLike":{"arn":"arn:aws:iam::*:role/*"}`:                              true,
		`"ArnLike":{"arn":"arn:*:role/*"}`:                                       false,
		`"StringEquals":{"n":"5"},"Bool":{"aws:SecureTransport":"false"}`:        false,
	} {
		p := alice(t, statementOf(`"Effect":"Allow","Action":"*","Resource":"*","Condition":{`+text+`}`))
		if d := Evaluate(&Request{Principal: p, Action: "a:b", Resource: "r", Keys: keys}); d.Allowed != want {
			t.Errorf("%s: %v", text, d.Allowed)
		}
	}
}

func TestMalformedDocumentsAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `{}`, `{"Statement":[],"Extra":1}`, statementOf(`"Effect":"allow","Action":"*","Resource":"*"`),
		statementOf(`"Effect":"Allow","Resource":"*"`), statementOf(`"Effect":"Allow","Action":"*"`),
		statementOf(`"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"`),
		statementOf(`"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"`),
		statementOf(`"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Strange":{"a":"b"}}`),
		statementOf(`"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"a":{}}}`),
		`{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}]}`,
		statementOf(`"Effect":"Allow","Action":"*","Resource":"*"`) + "x",
	} {
		if _, err := ParsePolicy(IdentityPolicy, []byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	for name := range managed() {
		policy(t, IdentityPolicy, Managed(name))
	}
}

func FuzzParsePolicy(f *testing.F) {
	for name := range managed() {
		f.Add([]byte(Managed(name)))
	}
	f.Add([]byte(`{"Statement":{"Effect":"Deny","Principal":{"AWS":["*"]},"NotAction":"a*?","NotResource":["${aws:username}"],"Condition":{"ForAnyValue:StringNotLikeIfExists":{"k":[1,true,"x*"]}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range []Kind{IdentityPolicy, ResourcePolicy, TrustPolicy} {
			p, err := ParsePolicy(kind, data)
			if err != nil {
				continue
			}
			who := &Principal{Account: "1", ARN: "a", Policies: []*Policy{p}}
			_ = Evaluate(&Request{Principal: who, Action: "a:b", Resource: "r", Policy: p, Keys: bag{"aws:username": {"x"}}})
		}
	})
}
