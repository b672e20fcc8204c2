package identity

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

const (
	sessionPurpose = "session"
	secretPurpose  = "session secret"
	// MinSession and MaxSession bound how long a session lasts; roles may allow less.
	MinSession, MaxSession = 15 * time.Minute, 12 * time.Hour
	defaultSession         = time.Hour
	// maxPackedBytes bounds what a caller puts into a session, so that its token fits into a header.
	maxPackedBytes = 4096
	maxTags        = 50
)

// ErrExpired is the error for a session that has ended.
var ErrExpired = errs.New(errs.Unauthenticated, "The security token included in the request is expired")

// session is what a token holds. It is sealed, so any process with the operator's key can read it, and
// nothing is kept of it.
type session struct {
	Key      string            `json:"k"`
	Role     string            `json:"r"` // ARN; empty: the session is of whom Parent belongs to
	Name     string            `json:"n"`
	Tags     map[string]string `json:"t,omitempty"`
	Policies []string          `json:"p,omitempty"` // documents
	Issued   int64             `json:"i"`           // seconds
	Expires  int64             `json:"e"`
	Web      bool              `json:"w,omitempty"`
	// Parent is the lasting access key that the session was made with, and that it ends with.
	Parent string `json:"a,omitempty"`
	// MFA is when the user showed the code of a device, seconds; 0: it did not.
	MFA int64 `json:"m,omitempty"`
}

// Credentials are of a session.
type Credentials struct {
	AccessKey, Secret, Token string
	Expires                  time.Time
	// RoleID and ARN name who acts in the session.
	RoleID, ARN string
	// PackedPercent is how much of what callers may put into a session is used.
	PackedPercent int
}

// Assumption asks for a session in a role.
type Assumption struct {
	RoleARN, Name string
	Duration      time.Duration // 0: an hour, or what the role allows
	Policies      []string      // documents, or ARNs of policies
	Tags          map[string]string
	Keys          iam.Keys // of the request
	Web           bool     // the caller is somebody an OIDC provider vouches for
}

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// Assume gives caller a session in a role whose trust policy allows it. Errors: Invalid, Denied (also for
// a role that does not exist), Unavailable.
func (x *Identities) Assume(_ context.Context, caller *iam.Principal, a Assumption) (Credentials, error) {
	d, err := x.look()
	if err != nil {
		return Credentials{}, err
	}
	keys, err := x.sessionKeys()
	if err != nil {
		return Credentials{}, err
	}
	if !sessionName.MatchString(a.Name) {
		return Credentials{}, errs.New(errs.Invalid, "RoleSessionName must be 2 to 64 letters, digits or +=,.@-_")
	}
	action := "sts:AssumeRole"
	if a.Web {
		action = "sts:AssumeRoleWithWebIdentity"
	}
	denied := errs.New(errs.Denied, "User: %s is not authorized to perform: %s on resource: %s", caller.ARN, action, a.RoleARN)
	role := d.roles[a.RoleARN]
	if role == nil {
		return Credentials{}, denied
	}
	ask := &iam.Request{Principal: caller, Action: action, Resource: a.RoleARN, Account: role.account.ID, Policy: role.trust, Keys: a.Keys}
	if !iam.Trusts(ask) {
		return Credentials{}, denied
	}
	if ask.Action = "sts:TagSession"; len(a.Tags) > 0 && !iam.Trusts(ask) {
		return Credentials{}, errs.New(errs.Denied, "User: %s is not authorized to perform: sts:TagSession on resource: %s", caller.ARN, a.RoleARN)
	}
	return x.issue(keys, role, &a)
}

// sessionKeys are the operator's keys. Errors: Unavailable.
func (x *Identities) sessionKeys() (*Keyring, error) {
	k := x.keys.Load()
	if k == nil {
		return nil, errs.New(errs.Unavailable, "sessions need the operator's key (auth.key_file)")
	}
	return k, nil
}

// issue makes a session.
func (x *Identities) issue(keys *Keyring, role *roleEntry, a *Assumption) (Credentials, error) {
	longest := defaultSession
	if role.role.MaxSession > 0 {
		longest = min(time.Duration(role.role.MaxSession), MaxSession)
	}
	if a.Duration == 0 {
		a.Duration = min(defaultSession, longest)
	}
	if a.Duration < MinSession || a.Duration > longest {
		return Credentials{}, errs.New(errs.Invalid, "The requested DurationSeconds must be between %d and the MaxSessionDuration set for this role, %d", int(MinSession.Seconds()), int(longest.Seconds()))
	}
	now := x.now()
	s := session{Role: a.RoleARN, Name: a.Name, Tags: a.Tags, Issued: now.Unix(), Expires: now.Add(a.Duration).Unix(), Web: a.Web}
	packed := 0
	for _, p := range a.Policies {
		text := p
		if !strings.HasPrefix(strings.TrimSpace(p), "{") {
			if text = role.account.document(p); text == "" {
				return Credentials{}, errs.New(errs.Invalid, "there is no policy %q", p)
			}
		}
		if _, err := iam.ParsePolicy(iam.IdentityPolicy, []byte(text)); err != nil {
			return Credentials{}, err
		}
		s.Policies = append(s.Policies, text)
		packed += len(text)
	}
	for k, v := range a.Tags {
		packed += len(k) + len(v)
		if k == "" || len(k) > 128 || len(v) > 256 {
			return Credentials{}, errs.New(errs.Invalid, "session tag %q must have a key of 1 to 128 bytes and a value of at most 256", k)
		}
	}
	if packed > maxPackedBytes || len(a.Tags) > maxTags {
		return Credentials{}, errs.New(errs.BodyTooLarge, "session policies and tags have %d bytes, at most %d and %d tags are allowed", packed, maxPackedBytes, maxTags)
	}
	cred, err := s.sealed(keys)
	if err != nil {
		return Credentials{}, err
	}
	p := x.inSession(role, &s, nil)
	cred.RoleID, cred.ARN, cred.PackedPercent = p.ID, p.ARN, packed*100/maxPackedBytes
	return cred, nil
}

// sealed gives s an access key and returns its credentials.
func (s *session) sealed(keys *Keyring) (Credentials, error) {
	var random [10]byte
	_, _ = rand.Read(random[:])
	s.Key = sessionPrefix + base32.StdEncoding.EncodeToString(random[:])
	text, err := json.Marshal(s)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		AccessKey: s.Key, Secret: s.secret(keys, 0), Token: base64.StdEncoding.EncodeToString(keys.seal(sessionPurpose, "", text)),
		Expires: time.Unix(s.Expires, 0).UTC(),
	}, nil
}

// secret is derived from the key that sealed the session, so that a token need not hold it.
func (s *session) secret(keys *Keyring, sealedBy int) string {
	return base64.RawStdEncoding.EncodeToString(keys.mac(sealedBy, secretPurpose, s.Key+strconv.FormatInt(s.Expires, 10)))
}

// sessionKey looks up a temporary access key by its token.
func (x *Identities) sessionKey(d *directory, id, token string) (Key, error) {
	sealed, err := base64.StdEncoding.DecodeString(token)
	keys := x.keys.Load()
	if err != nil || keys == nil {
		return Key{}, errUnknown()
	}
	text, err := keys.open(sessionPurpose, "", sealed)
	if err != nil {
		return Key{}, errUnknown()
	}
	var s session
	if err := json.Unmarshal(text, &s); err != nil || s.Key != id {
		return Key{}, errUnknown()
	}
	if x.now().Unix() >= s.Expires {
		return Key{}, ErrExpired
	}
	if s.Parent != "" {
		return s.ofUser(d, s.secret(keys, keys.index(sealed)))
	}
	role := d.roles[s.Role]
	if role == nil || time.Unix(s.Issued, 0).Before(role.role.NotBefore.Truncate(time.Second)) {
		return Key{}, errUnknown()
	}
	var policies []*iam.Policy
	for _, p := range s.Policies {
		parsed, err := iam.ParsePolicy(iam.IdentityPolicy, []byte(p))
		if err != nil {
			return Key{}, errUnknown()
		}
		policies = append(policies, parsed)
	}
	return Key{s.secret(keys, keys.index(sealed)), x.inSession(role, &s, policies)}, nil
}

// inSession is who acts in a session.
func (x *Identities) inSession(role *roleEntry, s *session, policies []*iam.Policy) *iam.Principal {
	p := role.principal
	p.Name, p.AccessKey, p.Since, p.Sessions = s.Name, s.Key, time.Unix(s.Issued, 0), policies
	p.ARN = "arn:aws:sts::" + p.Account + ":assumed-role/" + role.role.Name + "/" + s.Name
	p.ID = p.RoleID + ":" + s.Name
	if s.Web {
		p.Type = iam.TypeWeb
	}
	if len(s.Tags) > 0 {
		p.Tags = maps.Clone(p.Tags)
		if p.Tags == nil {
			p.Tags = map[string]string{}
		}
		maps.Copy(p.Tags, s.Tags)
	}
	return &p
}

// index finds the key that sealed something which could be opened.
func (k *Keyring) index(sealed []byte) int {
	for i, key := range k.keys {
		if string(keyName(key)) == string(sealed[:keyIDBytes]) {
			return i
		}
	}
	return 0
}

// document returns the text of the policy of that name or ARN; empty: there is none.
func (a *Account) document(name string) string {
	short := strings.TrimPrefix(name, "arn:aws:iam::"+a.ID+":policy/")
	for i := range a.Policies {
		if a.Policies[i].Name == short {
			return string(a.Policies[i].Document)
		}
	}
	return iam.Managed(name)
}

// WebIdentity verifies a token of an OIDC provider and returns who it vouches for, with the claims as
// keys of conditions. Errors: Unauthenticated, Unavailable.
func (x *Identities) WebIdentity(ctx context.Context, token string) (*Vouched, error) {
	d, err := x.look()
	if err != nil {
		return nil, err
	}
	return x.verifyJWT(ctx, d, token)
}

// bearerJWT gives the bearer of a token of an OIDC provider the first role that its claims name.
func (x *Identities) bearerJWT(ctx context.Context, d *directory, token string) (*iam.Principal, error) {
	v, err := x.verifyJWT(ctx, d, token)
	if err != nil {
		return nil, err
	}
	for _, r := range v.entry.provider.Roles {
		role := d.roles[v.entry.account.roleARN(r.Role)]
		if role != nil && v.claims.has(r.Claim, r.Value) {
			s := session{Role: role.principal.RoleARN, Name: nameOf(v.Subject), Issued: v.issued.Unix(), Web: true}
			if v.issued.Before(role.role.NotBefore) {
				continue
			}
			return x.inSession(role, &s, nil), nil
		}
	}
	return nil, errUnknown()
}

// nameOf makes the name of a session of a subject.
func nameOf(subject string) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("+=,.@-_", r) || r < 128 && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '-'
	}, subject)
	return name[:min(len(name), 64)]
}

// IsExpired says whether err is that of a session that has ended.
func IsExpired(err error) bool { return errors.Is(err, ErrExpired) }
