package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// directory is all accounts, indexed. It is never changed.
type directory struct {
	keys      map[string]keyEntry
	tokens    map[string]tokenEntry // by hash
	certs     map[string]*iam.Principal
	roles     map[string]*roleEntry // by ARN
	providers map[string]*providerEntry
	mfa       map[string]mfaEntry // by serial number
	accounts  map[string]*Account
}

type keyEntry struct {
	secret    config.Secret
	inactive  bool
	principal *iam.Principal
}

type tokenEntry struct {
	expires   time.Time
	inactive  bool
	principal *iam.Principal
}

type roleEntry struct {
	account   *Account
	role      *Role
	trust     *iam.Policy
	principal iam.Principal // what sessions of the role have in common
}

type providerEntry struct {
	account  *Account
	provider *Provider
}

// newDirectory indexes accounts. Errors: Invalid, for the first thing that is wrong.
func newDirectory(accounts []*Account) (*directory, error) {
	d := &directory{
		keys: map[string]keyEntry{}, tokens: map[string]tokenEntry{}, certs: map[string]*iam.Principal{},
		roles: map[string]*roleEntry{}, providers: map[string]*providerEntry{}, mfa: map[string]mfaEntry{}, accounts: map[string]*Account{},
	}
	for _, a := range accounts {
		if err := a.Validate(); err != nil {
			return nil, err
		}
		if d.accounts[a.ID] != nil {
			return nil, errs.New(errs.Invalid, "account %s is there twice", a.ID)
		}
		d.accounts[a.ID] = a
		if err := d.add(a); err != nil {
			return nil, errs.New(errs.Invalid, "account %s: %w", a.ID, err)
		}
	}
	return d, nil
}

func (d *directory) add(a *Account) error {
	for i := range a.Policies {
		if _, err := iam.ParsePolicy(iam.IdentityPolicy, []byte(a.Policies[i].Document)); err != nil {
			return fmt.Errorf("policy %s: %w", a.Policies[i].Name, err)
		}
	}
	root := &iam.Principal{Account: a.ID, ARN: "arn:aws:iam::" + a.ID + ":root", ID: a.ID, Type: iam.TypeRoot, Root: true}
	if err := d.addKeys(a.RootKeys, root); err != nil {
		return err
	}
	groups := map[string][]*iam.Policy{}
	for i := range a.Groups {
		policies, err := a.attached(&a.Groups[i].Attached)
		if err != nil {
			return fmt.Errorf("group %s: %w", a.Groups[i].Name, err)
		}
		groups[a.Groups[i].Name] = policies
	}
	for i := range a.Users {
		if err := d.addUser(a, &a.Users[i], groups); err != nil {
			return fmt.Errorf("user %s: %w", a.Users[i].Name, err)
		}
	}
	for i := range a.Roles {
		if err := d.addRole(a, &a.Roles[i]); err != nil {
			return fmt.Errorf("role %s: %w", a.Roles[i].Name, err)
		}
	}
	for i := range a.Providers {
		p := &a.Providers[i]
		if p.Issuer == "" || len(p.Audiences) == 0 {
			return fmt.Errorf("OIDC provider %q needs an issuer and audiences", p.Issuer)
		}
		if d.providers[p.Issuer] != nil {
			return fmt.Errorf("OIDC provider %q is there twice", p.Issuer)
		}
		for _, r := range p.Roles {
			if d.roles[a.roleARN(r.Role)] == nil {
				return fmt.Errorf("OIDC provider %q names the role %q, which does not exist", p.Issuer, r.Role)
			}
		}
		d.providers[p.Issuer] = &providerEntry{a, p}
	}
	return nil
}

// roleARN finds the ARN of the role of that name.
func (a *Account) roleARN(name string) string {
	for i := range a.Roles {
		if a.Roles[i].Name == name {
			return a.arn("role", a.Roles[i].Path, name)
		}
	}
	return ""
}

// attached parses the policies of x.
func (a *Account) attached(x *Attached) ([]*iam.Policy, error) {
	var out []*iam.Policy
	for _, name := range x.Policies {
		p, err := a.parse(name)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	for name, text := range x.Inline {
		p, err := iam.ParsePolicy(iam.IdentityPolicy, []byte(text))
		if err != nil {
			return nil, fmt.Errorf("inline policy %s: %w", name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (d *directory) addKeys(keys []AccessKey, p *iam.Principal) error {
	for _, k := range keys {
		if _, ok := d.keys[k.ID]; ok {
			return fmt.Errorf("access key %s is there twice", k.ID)
		}
		mine := *p
		mine.AccessKey = k.ID
		d.keys[k.ID] = keyEntry{k.Secret, k.Inactive, &mine}
	}
	return nil
}

func (d *directory) addUser(a *Account, u *User, groups map[string][]*iam.Policy) error {
	p := &iam.Principal{Account: a.ID, ARN: a.arn("user", u.Path, u.Name), ID: u.ID, Type: iam.TypeUser, Name: u.Name, Tags: u.Tags}
	if p.ID == "" {
		p.ID = "AIDA" + strings.ToUpper(digest(p.ARN)[:17])
	}
	var err error
	if p.Policies, err = a.attached(&u.Attached); err != nil {
		return err
	}
	for _, g := range u.Groups {
		policies, ok := groups[g]
		if !ok {
			return fmt.Errorf("is in the group %q, which does not exist", g)
		}
		p.Policies = append(p.Policies, policies...)
	}
	if u.Boundary != "" {
		if p.Boundary, err = a.parse(u.Boundary); err != nil {
			return err
		}
	}
	for _, name := range u.Certificates {
		if d.certs[name] != nil {
			return fmt.Errorf("certificate name %q is somebody else's, too", name)
		}
		d.certs[name] = p
	}
	for i := range u.Tokens {
		if err := d.addToken(a, &u.Tokens[i], p); err != nil {
			return fmt.Errorf("token %s: %w", u.Tokens[i].ID, err)
		}
	}
	if err := d.addMFA(a, u, p.ARN); err != nil {
		return err
	}
	return d.addKeys(u.Keys, p)
}

func (d *directory) addToken(a *Account, t *Token, p *iam.Principal) error {
	hash := strings.ToLower(t.Hash)
	if t.Secret != "" {
		hash = digest(t.Secret.Reveal())
	}
	if _, ok := d.tokens[hash]; ok {
		return fmt.Errorf("is there twice")
	}
	mine := *p
	mine.AccessKey, mine.Workspace = t.ID, t.Workspace
	for _, scope := range t.Scopes {
		s, err := a.parse(scope)
		if err != nil {
			return err
		}
		mine.Sessions = append(mine.Sessions, s)
	}
	d.tokens[hash] = tokenEntry{t.Expires, t.Inactive, &mine}
	return nil
}

func (d *directory) addRole(a *Account, r *Role) error {
	e := &roleEntry{account: a, role: r}
	var err error
	if e.trust, err = iam.ParsePolicy(iam.TrustPolicy, []byte(r.Trust)); err != nil {
		return fmt.Errorf("trust policy: %w", err)
	}
	e.principal = iam.Principal{Account: a.ID, Type: iam.TypeSession, RoleARN: a.arn("role", r.Path, r.Name), RoleID: r.ID, Tags: r.Tags}
	if r.ID == "" {
		e.principal.RoleID = "AROA" + strings.ToUpper(digest(e.principal.RoleARN)[:17])
	}
	if e.principal.Policies, err = a.attached(&r.Attached); err != nil {
		return err
	}
	if r.Boundary != "" {
		if e.principal.Boundary, err = a.parse(r.Boundary); err != nil {
			return err
		}
	}
	d.roles[e.principal.RoleARN] = e
	return nil
}

// digest returns the SHA-256 of s in hexadecimal digits.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
