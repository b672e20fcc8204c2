package iam

import (
	"fmt"
	"strings"
)

// Request is what is asked.
type Request struct {
	Principal *Principal
	Action    string // aps:RemoteWrite
	Resource  string // ARN
	// Account owns the resource. Another account's principals need the resource's policy to allow them, too.
	Account string
	// Policy is that of the resource; nil: none.
	Policy *Policy
	Keys   Keys
}

// Decision is the answer.
type Decision struct {
	Allowed bool
	// Explicit says that a statement denies it; otherwise none allows it.
	Explicit bool
	// Selectors holds reads to series that at least one selector of each list selects. None: all series.
	Selectors [][]string
}

// Evaluate decides. What denies wins; then what allows must do so in every kind of policy that is there.
func Evaluate(r *Request) Decision {
	p := r.Principal
	action := strings.ToLower(r.Action)
	owner := r.Account == "" || r.Account == p.Account
	identity := gather(r, p.Policies, action, nil)
	var boundary, session, resource outcome
	if p.Boundary != nil {
		boundary = gather(r, []*Policy{p.Boundary}, action, nil)
	}
	if p.Sessions != nil {
		session = gather(r, p.Sessions, action, nil)
	}
	if r.Policy != nil {
		resource = gather(r, []*Policy{r.Policy}, action, p)
	}
	if identity.denied || boundary.denied || session.denied || resource.denied {
		return Decision{Explicit: true}
	}
	if p.Root && owner {
		return Decision{Allowed: true}
	}
	if p.Root {
		identity = outcome{allowed: true}
	}
	var d Decision
	switch {
	case owner && (identity.allowed || resource.allowed && resource.named):
		d.Allowed = true
		granted := identity
		if !identity.allowed {
			granted = resource
		} else if resource.allowed && resource.named {
			granted = either(identity, resource)
		}
		d.hold(granted)
	case !owner && identity.allowed && resource.allowed:
		d.Allowed = true
		d.hold(identity)
		d.hold(resource)
	}
	if p.Boundary != nil {
		d.Allowed = d.Allowed && boundary.allowed
		d.hold(boundary)
	}
	if p.Sessions != nil {
		d.Allowed = d.Allowed && session.allowed
		d.hold(session)
	}
	if !d.Allowed {
		return Decision{}
	}
	return d
}

// hold adds the selectors of o.
func (d *Decision) hold(o outcome) {
	if len(o.selectors) > 0 {
		d.Selectors = append(d.Selectors, o.selectors)
	}
}

// either is what two policies give of which one is enough.
func either(a, b outcome) outcome {
	out := outcome{allowed: true}
	if len(a.selectors) > 0 && len(b.selectors) > 0 {
		out.selectors = append(append(out.selectors, a.selectors...), b.selectors...)
	}
	return out
}

// outcome is what the policies of one kind say.
type outcome struct {
	denied, allowed bool
	named           bool     // a statement that allows names the principal, not only its account
	selectors       []string // of the statements that allow; empty: one allows all series
}

// gather runs through policies. caller is who the principals of statements are compared with; nil: they
// have none.
func gather(r *Request, policies []*Policy, action string, caller *Principal) outcome {
	var out outcome
	free := false
	for _, p := range policies {
		for i := range p.statements {
			s := &p.statements[i]
			match := exactly
			if caller != nil {
				match = s.names(caller)
			}
			if match == nobody || !s.applies(action, r.Resource, r.Keys) {
				continue
			}
			if s.deny {
				return outcome{denied: true}
			}
			out.allowed = true
			out.named = out.named || match == exactly
			free = free || len(s.selectors) == 0
			out.selectors = append(out.selectors, s.selectors...)
		}
	}
	if free {
		out.selectors = nil
	}
	return out
}

// applies says whether action, resource and all conditions fit.
func (s *statement) applies(action, resource string, keys Keys) bool {
	if anyMatches(s.actions, action, keys) == s.notActions || anyMatches(s.resources, resource, keys) == s.notResources {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].met(keys) {
			return false
		}
	}
	return true
}

func anyMatches(patterns []pattern, s string, keys Keys) bool {
	for i := range patterns {
		if patterns[i].matches(s, keys) {
			return true
		}
	}
	return false
}

// naming is how closely a statement names a principal.
type naming uint8

const (
	nobody  naming = iota
	account        // as one of its account, which must allow it itself
	exactly
)

func (s *statement) names(p *Principal) naming {
	found := s.principals.match(p)
	if !s.notPrincipals {
		return found
	}
	if found == nobody {
		return exactly
	}
	return nobody
}

func (x *principals) match(p *Principal) naming {
	switch {
	case x == nil: // a document of another kind
		return nobody
	case x.all:
		return exactly
	}
	found := nobody
	for _, a := range x.aws {
		switch {
		case a == p.ARN, p.RoleARN != "" && a == p.RoleARN:
			return exactly
		case a == p.Account, a == "arn:aws:iam::"+p.Account+":root":
			found = account
		}
	}
	for _, f := range x.federated {
		if p.Federated != "" && f == p.Federated {
			return exactly
		}
	}
	return found
}

// Denial is the text for who was refused, as AWS words it.
func Denial(r *Request, d Decision) string {
	why := fmt.Sprintf(" because no identity-based policy allows the %s action", r.Action)
	if d.Explicit {
		why = " with an explicit deny in an identity-based policy"
	}
	return fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s%s", r.Principal.ARN, r.Action, r.Resource, why)
}
