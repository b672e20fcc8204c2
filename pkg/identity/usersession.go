package identity

import (
	"context"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

const (
	// MaxUserSession bounds the session of a user, maxRootSession that of an account's root.
	MaxUserSession, maxRootSession = 36 * time.Hour, time.Hour
	defaultUserSession             = 12 * time.Hour
)

// UserSession gives a user, or the root of an account, that calls with a lasting access key temporary
// credentials with the same rights. They end with that key, too. lasts 0: half a day, or an hour for root. mfa is
// when the caller showed the code of a device for it; zero: it did not.
// Errors: Invalid, Denied, Unavailable.
func (x *Identities) UserSession(_ context.Context, caller *iam.Principal, lasts time.Duration, mfa time.Time) (Credentials, error) {
	d, err := x.look()
	if err != nil {
		return Credentials{}, err
	}
	keys, err := x.sessionKeys()
	if err != nil {
		return Credentials{}, err
	}
	if e, ok := d.keys[caller.AccessKey]; strings.HasPrefix(caller.AccessKey, sessionPrefix) || !ok || e.inactive {
		return Credentials{}, errs.New(errs.Denied, "Cannot call GetSessionToken with session credentials")
	}
	longest, usual := MaxUserSession, defaultUserSession
	if caller.Root {
		longest, usual = maxRootSession, maxRootSession
	}
	if lasts == 0 {
		lasts = usual
	}
	if lasts < MinSession {
		return Credentials{}, errs.New(errs.Invalid, "DurationSeconds must be at least %d", int(MinSession.Seconds()))
	}
	now := x.now()
	s := &session{Parent: caller.AccessKey, Issued: now.Unix(), Expires: now.Add(min(lasts, longest)).Unix()}
	if !mfa.IsZero() {
		s.MFA = mfa.Unix()
	}
	cred, err := s.sealed(keys)
	cred.ARN = caller.ARN
	return cred, err
}

// ofUser is what the temporary access key of a user's session is good for.
func (s *session) ofUser(d *directory, secret string) (Key, error) {
	e, ok := d.keys[s.Parent]
	if !ok || e.inactive {
		return Key{}, errUnknown()
	}
	p := *e.principal
	p.AccessKey, p.Since = s.Key, time.Unix(s.Issued, 0)
	if s.MFA > 0 {
		p.MFA = time.Unix(s.MFA, 0)
	}
	return Key{secret, &p}, nil
}
