// Package iam owns permissions: policy documents, the identities they are attached to, and the
// evaluation that decides whether a principal may perform an action on a resource, and on which
// series. It does no I/O: documents and requests go in, decisions come out. The language is the
// subset of AWS IAM that Amazon's metrics service uses.
package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// MaxPolicyBytes bounds a policy document.
	MaxPolicyBytes = 20 << 10
	// SelectorKey is the condition key whose values are selectors of series. In a statement that allows
	// reads it holds them to the series that one of its values selects.
	SelectorKey = "amphora:labelselector"
)

// Policy is a parsed document. It is never changed.
type Policy struct {
	statements []statement
}

// Kind says where a document is used, which decides what its statements must name.
type Kind uint8

// The kinds of documents.
const (
	IdentityPolicy Kind = iota // attached to who acts: names no principal
	ResourcePolicy             // attached to what is acted on: names principals
	TrustPolicy                // of a role: names principals, and no resource
)

type statement struct {
	deny          bool
	actions       []pattern
	notActions    bool
	resources     []pattern
	notResources  bool
	principals    *principals
	notPrincipals bool
	conditions    []condition
	selectors     []string
}

// principals is whom a statement of a resource or trust policy names.
type principals struct {
	all       bool
	aws       []string
	federated []string
}

// list is a string or a list of strings.
type list []string

// UnmarshalJSON takes both forms.
func (l *list) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*l = list{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return err
	}
	*l = many
	return nil
}

// scalars is a list whose items may be numbers and booleans, too.
type scalars []string

// UnmarshalJSON takes a scalar or a list of scalars.
func (s *scalars) UnmarshalJSON(data []byte) error {
	items := []json.RawMessage{data}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		if err := json.Unmarshal(data, &items); err != nil {
			return err
		}
	}
	*s = scalars{}
	for _, item := range items {
		text := strings.TrimSpace(string(item))
		if strings.HasPrefix(text, `"`) {
			if err := json.Unmarshal(item, &text); err != nil {
				return err
			}
		} else if text == "null" || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
			return errors.New("a condition value is a string, a number or a boolean")
		}
		*s = append(*s, text)
	}
	return nil
}

type document struct {
	Version   string          `json:"Version"`
	ID        json.RawMessage `json:"Id"`
	Statement json.RawMessage `json:"Statement"`
}

type clause struct {
	Sid          string                        `json:"Sid"`
	Effect       string                        `json:"Effect"`
	Principal    json.RawMessage               `json:"Principal"`
	NotPrincipal json.RawMessage               `json:"NotPrincipal"`
	Action       list                          `json:"Action"`
	NotAction    list                          `json:"NotAction"`
	Resource     list                          `json:"Resource"`
	NotResource  list                          `json:"NotResource"`
	Condition    map[string]map[string]scalars `json:"Condition"`
}

// ParsePolicy reads a document. Errors: Invalid, saying what is wrong with it.
func ParsePolicy(kind Kind, data []byte) (*Policy, error) {
	if len(data) > MaxPolicyBytes {
		return nil, errs.New(errs.Invalid, "policy document is larger than %d bytes", MaxPolicyBytes)
	}
	var doc document
	if err := strict(data, &doc); err != nil {
		return nil, errs.New(errs.Invalid, "policy document: %w", err)
	}
	if doc.Version != "" && doc.Version != "2012-10-17" && doc.Version != "2008-10-17" {
		return nil, errs.New(errs.Invalid, "policy document: unknown version %q", doc.Version)
	}
	var clauses []clause
	if bytes.HasPrefix(bytes.TrimSpace(doc.Statement), []byte("[")) {
		if err := strict(doc.Statement, &clauses); err != nil {
			return nil, errs.New(errs.Invalid, "policy statements: %w", err)
		}
	} else {
		clauses = make([]clause, 1)
		if err := strict(doc.Statement, &clauses[0]); err != nil {
			return nil, errs.New(errs.Invalid, "policy statement: %w", err)
		}
	}
	p := &Policy{}
	sids := map[string]bool{}
	for i := range clauses {
		if sid := clauses[i].Sid; sid != "" && sids[sid] {
			return nil, errs.New(errs.Invalid, "policy has two statements with the Sid %q", sid)
		}
		sids[clauses[i].Sid] = true
		s, err := clauses[i].statement(kind, doc.Version == "2012-10-17")
		if err != nil {
			return nil, errs.New(errs.Invalid, "policy statement %d: %w", i+1, err)
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

// strict decodes one JSON value and refuses members it does not know.
func strict(data []byte, to any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("is missing")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("has text after its end")
	}
	return nil
}

func (c *clause) statement(kind Kind, variables bool) (statement, error) {
	s := statement{notActions: c.NotAction != nil, notResources: c.NotResource != nil, notPrincipals: c.NotPrincipal != nil}
	switch c.Effect {
	case "Allow":
	case "Deny":
		s.deny = true
	default:
		return s, errors.New("needs an Effect of Allow or Deny")
	}
	if (c.Action == nil) == (c.NotAction == nil) {
		return s, errors.New("needs either Action or NotAction")
	}
	for _, a := range append(c.Action, c.NotAction...) {
		s.actions = append(s.actions, compile(strings.ToLower(a), false))
	}
	if err := c.targets(&s, kind, variables); err != nil {
		return s, err
	}
	return s, c.addConditions(&s, variables)
}

// targets reads resources and principals.
func (c *clause) targets(s *statement, kind Kind, variables bool) error {
	switch {
	case kind == TrustPolicy:
		if c.Resource != nil || c.NotResource != nil {
			return errors.New("of a trust policy names no Resource")
		}
		s.resources = []pattern{compile("*", false)}
	case (c.Resource == nil) == (c.NotResource == nil):
		return errors.New("needs either Resource or NotResource")
	}
	for _, r := range append(c.Resource, c.NotResource...) {
		s.resources = append(s.resources, compile(r, variables))
	}
	if kind == IdentityPolicy {
		if c.Principal != nil || c.NotPrincipal != nil {
			return errors.New("of an identity policy names no Principal")
		}
		return nil
	}
	if (c.Principal == nil) == (c.NotPrincipal == nil) {
		return errors.New("needs either Principal or NotPrincipal")
	}
	if c.NotPrincipal != nil && !s.deny {
		return errors.New("may use NotPrincipal only to deny")
	}
	raw := c.Principal
	if raw == nil {
		raw = c.NotPrincipal
	}
	var err error
	s.principals, err = parsePrincipals(raw)
	return err
}

func parsePrincipals(raw json.RawMessage) (*principals, error) {
	var all string
	if err := json.Unmarshal(raw, &all); err == nil {
		if all != "*" {
			return nil, errors.New(`has a Principal that is neither "*" nor an object`)
		}
		return &principals{all: true}, nil
	}
	var by struct{ AWS, Service, Federated, CanonicalUser list }
	if err := strict(raw, &by); err != nil {
		return nil, err
	}
	p := &principals{aws: by.AWS, federated: by.Federated}
	for _, a := range by.AWS {
		p.all = p.all || a == "*"
	}
	return p, nil
}

func (c *clause) addConditions(s *statement, variables bool) error {
	for operator, keys := range c.Condition {
		for key, values := range keys {
			if strings.EqualFold(key, SelectorKey) {
				if operator != "StringEquals" || s.deny || len(values) == 0 {
					return errors.New("may use " + SelectorKey + " with StringEquals and Allow only, and with a selector")
				}
				s.selectors = append(s.selectors, values...)
				continue
			}
			cond, err := newCondition(operator, key, values, variables)
			if err != nil {
				return err
			}
			s.conditions = append(s.conditions, cond)
		}
	}
	return nil
}

// Selectors returns every selector of series that p names, for whoever can check them.
func (p *Policy) Selectors() []string {
	var out []string
	for i := range p.statements {
		out = append(out, p.statements[i].selectors...)
	}
	return out
}
