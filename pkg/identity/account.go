// Package identity owns who may call: accounts with their users, groups, roles, access keys, tokens,
// policies and identity providers. They come from a file that the operator writes and from encrypted
// documents that the administration API changes; both form one directory in memory, in which callers
// are looked up. What a caller may do is decided in iam.
package identity

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// Account is everything of one account, as it is stored and as the file has it.
type Account struct {
	ID        string        `json:"id" yaml:"id"` // 12 digits
	Name      string        `json:"name,omitempty" yaml:"name"`
	RootKeys  []AccessKey   `json:"root_keys,omitempty" yaml:"root_keys"`
	Users     []User        `json:"users,omitempty" yaml:"users"`
	Groups    []Group       `json:"groups,omitempty" yaml:"groups"`
	Roles     []Role        `json:"roles,omitempty" yaml:"roles"`
	Policies  []NamedPolicy `json:"policies,omitempty" yaml:"policies"`
	Providers []Provider    `json:"oidc_providers,omitempty" yaml:"oidc_providers"`
}

// Document is a policy document in JSON. In YAML it may also be written as a mapping.
type Document string

// UnmarshalYAML takes text and mappings.
func (d *Document) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*d = Document(n.Value)
		return nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("line %d: policy document: %w", n.Line, err)
	}
	*d = Document(data)
	return nil
}

// UnmarshalJSON takes text and objects.
func (d *Document) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	*d = Document(text)
	return nil
}

// Span is a duration that is written as 1h30m.
type Span time.Duration

// MarshalText writes it.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText reads it.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

// Attached is the permissions of a user, a group or a role.
type Attached struct {
	Policies []string            `json:"policies,omitempty" yaml:"policies"` // names or ARNs
	Inline   map[string]Document `json:"inline,omitempty" yaml:"inline"`
}

// User is a person or a program.
type User struct {
	Name         string            `json:"name" yaml:"name"`
	Path         string            `json:"path,omitempty" yaml:"path"` // /, or /team/
	ID           string            `json:"id,omitempty" yaml:"id"`
	Tags         map[string]string `json:"tags,omitempty" yaml:"tags"`
	Groups       []string          `json:"groups,omitempty" yaml:"groups"`
	Attached     `yaml:",inline"`
	Boundary     string      `json:"boundary,omitempty" yaml:"boundary"` // name or ARN of a policy
	Keys         []AccessKey `json:"keys,omitempty" yaml:"keys"`
	Tokens       []Token     `json:"tokens,omitempty" yaml:"tokens"`
	Certificates []string    `json:"certificates,omitempty" yaml:"certificates"` // subject CN, DNS name or URI of client certificates
	MFA          []MFADevice `json:"mfa_devices,omitempty" yaml:"mfa_devices"`
	Created      time.Time   `json:"created,omitzero" yaml:"created"`
}

// Group gives its users its policies.
type Group struct {
	Name     string `json:"name" yaml:"name"`
	Attached `yaml:",inline"`
}

// Role is taken on by those its trust policy names.
type Role struct {
	Name       string            `json:"name" yaml:"name"`
	Path       string            `json:"path,omitempty" yaml:"path"`
	ID         string            `json:"id,omitempty" yaml:"id"`
	Tags       map[string]string `json:"tags,omitempty" yaml:"tags"`
	Trust      Document          `json:"trust" yaml:"trust"`
	Attached   `yaml:",inline"`
	Boundary   string `json:"boundary,omitempty" yaml:"boundary"`
	MaxSession Span   `json:"max_session,omitempty" yaml:"max_session"` // 0: an hour
	// NotBefore revokes the sessions made before it.
	NotBefore time.Time `json:"not_before,omitzero" yaml:"not_before"`
	Created   time.Time `json:"created,omitzero" yaml:"created"`
}

// NamedPolicy is a document that can be attached.
type NamedPolicy struct {
	Name     string   `json:"name" yaml:"name"`
	Document Document `json:"document" yaml:"document"`
}

// AccessKey is a key pair for signatures and for HTTP Basic. It prints without its secret.
type AccessKey struct {
	ID       string        `json:"id" yaml:"id"`
	Secret   config.Secret `json:"-" yaml:"secret"`
	Inactive bool          `json:"inactive,omitempty" yaml:"inactive"`
	Created  time.Time     `json:"created,omitzero" yaml:"created"`
}

// Token is a bearer token. Only its hash is kept.
type Token struct {
	ID          string    `json:"id" yaml:"id"`
	Hash        string    `json:"hash,omitempty" yaml:"hash"` // SHA-256, hexadecimal
	Description string    `json:"description,omitempty" yaml:"description"`
	Workspace   string    `json:"workspace,omitempty" yaml:"workspace"` // the only one it is good for; empty: any
	Scopes      []string  `json:"scopes,omitempty" yaml:"scopes"`       // policies it is held to; none: what its user may
	Expires     time.Time `json:"expires,omitzero" yaml:"expires"`
	Inactive    bool      `json:"inactive,omitempty" yaml:"inactive"`
	Created     time.Time `json:"created,omitzero" yaml:"created"`

	// Secret is the token itself, in files only.
	Secret config.Secret `json:"-" yaml:"secret"`
}

// Provider is an issuer of OIDC tokens. Its tokens name a role by their claims.
type Provider struct {
	Issuer    string      `json:"issuer" yaml:"issuer"` // https://host/path
	Audiences []string    `json:"audiences" yaml:"audiences"`
	JWKSURL   string      `json:"jwks_url,omitempty" yaml:"jwks_url"`
	JWKSFile  string      `json:"jwks_file,omitempty" yaml:"jwks_file"`
	Roles     []ClaimRole `json:"roles,omitempty" yaml:"roles"` // for bearer tokens, the first that fits
}

// ClaimRole gives those whose claim has the value a role.
type ClaimRole struct {
	Claim string `json:"claim" yaml:"claim"`
	Value string `json:"value" yaml:"value"` // may have * and ?
	Role  string `json:"role" yaml:"role"`   // name of a role of the account
}

// MaxKeys is how many access keys a user may have, so that one can be rotated.
const MaxKeys = 2

var (
	accountID  = regexp.MustCompile(`^[0-9]{12}$`)
	entityName = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	entityPath = regexp.MustCompile(`^/([!-~]+/)?$`)
	keyID      = regexp.MustCompile(`^[\w-]{8,128}$`)
)

// Validate checks what a can be checked for by itself. Errors: Invalid.
func (a *Account) Validate() error {
	if !accountID.MatchString(a.ID) {
		return errs.New(errs.Invalid, "account id %q is not 12 digits", a.ID)
	}
	if err := unique(a.Users, "user", func(u User) string { return strings.ToLower(u.Name) }); err != nil {
		return err
	}
	if err := unique(a.Groups, "group", func(g Group) string { return g.Name }); err != nil {
		return err
	}
	if err := unique(a.Roles, "role", func(r Role) string { return r.Name }); err != nil {
		return err
	}
	if err := unique(a.Policies, "policy", func(p NamedPolicy) string { return p.Name }); err != nil {
		return err
	}
	for i := range a.Users {
		if err := a.Users[i].validate(); err != nil {
			return errs.New(errs.Invalid, "user %s: %w", a.Users[i].Name, err)
		}
	}
	for i := range a.Roles {
		if r := &a.Roles[i]; r.Path != "" && !entityPath.MatchString(r.Path) {
			return errs.New(errs.Invalid, "role %s: path %q must begin and end with /", r.Name, r.Path)
		}
	}
	return validKeys(a.RootKeys)
}

func unique[T any](items []T, kind string, name func(T) string) error {
	seen := map[string]bool{}
	for _, item := range items {
		n := name(item)
		if !entityName.MatchString(n) {
			return errs.New(errs.Invalid, "%s name %q must be 1 to 128 letters, digits or +=,.@-_", kind, n)
		}
		if seen[n] {
			return errs.New(errs.Invalid, "%s %q is there twice", kind, n)
		}
		seen[n] = true
	}
	return nil
}

func (u *User) validate() error {
	if u.Path != "" && !entityPath.MatchString(u.Path) {
		return errs.New(errs.Invalid, "path %q must begin and end with /", u.Path)
	}
	for _, t := range u.Tokens {
		if t.ID == "" || (t.Hash == "") == (t.Secret == "") {
			return errs.New(errs.Invalid, "token %q needs an id, and either a hash or a secret", t.ID)
		}
		if t.Secret != "" && len(t.Secret) < minSecretBytes {
			return errs.New(errs.Invalid, "token %q is shorter than %d bytes", t.ID, minSecretBytes)
		}
	}
	if err := u.validateMFA(); err != nil {
		return err
	}
	return validKeys(u.Keys)
}

// minSecretBytes keeps secrets out of reach of guessing.
const minSecretBytes = 16

func validKeys(keys []AccessKey) error {
	if len(keys) > MaxKeys {
		return errs.New(errs.Invalid, "has %d access keys, at most %d are allowed", len(keys), MaxKeys)
	}
	for _, k := range keys {
		if !keyID.MatchString(k.ID) || strings.HasPrefix(k.ID, sessionPrefix) {
			return errs.New(errs.Invalid, "access key id %q must be 8 to 128 letters, digits, - or _, and not begin with %s", k.ID, sessionPrefix)
		}
		if len(k.Secret) < minSecretBytes {
			return errs.New(errs.Invalid, "secret of access key %s is shorter than %d bytes", k.ID, minSecretBytes)
		}
	}
	return nil
}

// arn returns the ARN of a thing of a.
func (a *Account) arn(kind, path, name string) string {
	if path == "" {
		path = "/"
	}
	return "arn:aws:iam::" + a.ID + ":" + kind + path + name
}

// parse reads the policy of that name or ARN: one of a, or a built-in one.
func (a *Account) parse(name string) (*iam.Policy, error) {
	short := strings.TrimPrefix(name, "arn:aws:iam::"+a.ID+":policy/")
	for i := range a.Policies {
		if a.Policies[i].Name == short {
			return iam.ParsePolicy(iam.IdentityPolicy, []byte(a.Policies[i].Document))
		}
	}
	if text := iam.Managed(name); text != "" {
		return iam.ParsePolicy(iam.IdentityPolicy, []byte(text))
	}
	return nil, errs.New(errs.Invalid, "there is no policy %q", name)
}
