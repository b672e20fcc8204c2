package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // HMAC with it is what authenticator apps compute, and is not broken.
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// MFADevice computes codes that prove that a user holds it: TOTP of RFC 6238 with SHA-1, six digits and steps
// of half a minute, as authenticator apps have it. Its serial number is the ARN of its name.
type MFADevice struct {
	Name    string        `json:"name" yaml:"name"`
	Secret  config.Secret `json:"-" yaml:"secret"`            // base32
	Pending bool          `json:"pending,omitempty" yaml:"-"` // nobody has shown yet that it computes the right codes
	Created time.Time     `json:"created,omitzero" yaml:"created"`
}

const (
	// MaxMFADevices is how many a user may have, as in AWS.
	MaxMFADevices = 8

	mfaStep   = 30 * time.Second
	mfaDigits = 1_000_000
	// mfaSkew is how many steps the clock of a device may be off.
	mfaSkew = 1
	// mfaSecretBytes is the length of new secrets, that of the hash, as the RFC recommends; minMFABytes the least it allows.
	mfaSecretBytes, minMFABytes = 20, 16

	// After mfaFree wrong codes in a row a device rests, twice as long after each, up to mfaLongest: who has the access
	// key but not the device guesses right once in some ten years.
	mfaFree    = 5
	mfaRest    = 2 * time.Second
	mfaLongest = 15 * time.Minute

	// mfaKept is for how long what is remembered of a device stays after it is deleted, far longer than its codes are
	// good anywhere and than it rests, and how often is looked for such.
	mfaKept = 24 * time.Hour

	mfaPrefix  = "iam/mfa/"
	mfaPurpose = "mfa"
)

var mfaCode = regexp.MustCompile(`^[0-9]{6}$`)

// mfaEntry is a device in the directory.
type mfaEntry struct {
	owner   string // ARN
	secret  []byte
	pending bool
	key     string // of the document that says which codes were used
}

// decodeMFA reads a secret as people copy it. Errors: Invalid, without the secret.
func decodeMFA(text string) ([]byte, error) {
	plain := strings.ToUpper(strings.TrimRight(strings.ReplaceAll(text, " ", ""), "="))
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(plain)
	if err != nil {
		return nil, errs.New(errs.Invalid, "secret is not base32")
	}
	if len(secret) < minMFABytes {
		return nil, errs.New(errs.Invalid, "secret has %d bytes, at least %d are needed", len(secret), minMFABytes)
	}
	return secret, nil
}

func (u *User) validateMFA() error {
	if len(u.MFA) > MaxMFADevices {
		return errs.New(errs.Invalid, "has %d MFA devices, at most %d are allowed", len(u.MFA), MaxMFADevices)
	}
	for _, m := range u.MFA {
		if !entityName.MatchString(m.Name) {
			return errs.New(errs.Invalid, "MFA device name %q must be 1 to 128 letters, digits or +=,.@-_", m.Name)
		}
		if _, err := decodeMFA(m.Secret.Reveal()); err != nil {
			return errs.New(errs.Invalid, "MFA device %s: %w", m.Name, err)
		}
	}
	return nil
}

func (d *directory) addMFA(a *Account, u *User, owner string) error {
	for _, m := range u.MFA {
		serial := a.serial(m.Name)
		if _, ok := d.mfa[serial]; ok {
			return fmt.Errorf("MFA device %q is there twice in the account", m.Name)
		}
		secret, err := decodeMFA(m.Secret.Reveal())
		if err != nil {
			return err
		}
		d.mfa[serial] = mfaEntry{owner, secret, m.Pending, mfaPrefix + digest(serial+"\x00"+m.Secret.Reveal())}
	}
	return nil
}

// serial is the serial number of the device of that name.
func (a *Account) serial(name string) string { return "arn:aws:iam::" + a.ID + ":mfa/" + name }

// totp is the code of a step.
func totp(secret []byte, step int64) string {
	var message [8]byte
	binary.BigEndian.PutUint64(message[:], uint64(step))
	h := hmac.New(sha1.New, secret)
	_, _ = h.Write(message[:]) // it never fails
	sum := h.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%mfaDigits)
}

// stepAt is the step of a time.
func stepAt(t time.Time) int64 { return t.Unix() / int64(mfaStep.Seconds()) }

// stepOf finds the step of a code among those around now; 0: it is of none. All are computed whatever fits.
func stepOf(secret []byte, code string, now int64) (found int64) {
	for step := now - mfaSkew; step <= now+mfaSkew; step++ {
		if subtle.ConstantTimeCompare([]byte(totp(secret, step)), []byte(code)) == 1 {
			found = step
		}
	}
	return found
}

// mfaUse is what is remembered of a device, by all gateways.
type mfaUse struct {
	Step     int64 `json:"step"`               // the last of which a code was taken
	Failures int   `json:"failures,omitempty"` // wrong codes since
	At       int64 `json:"at,omitempty"`       // when the last of them came, seconds
}

// rests is how long no code is looked at.
func (u *mfaUse) rests(now time.Time) time.Duration {
	if u.Failures < mfaFree {
		return 0
	}
	pause := mfaLongest
	if n := u.Failures - mfaFree; n < 16 {
		pause = min(mfaLongest, mfaRest<<n)
	}
	return time.Unix(u.At, 0).Add(pause).Sub(now)
}

// MFA checks the code of a device of caller, and returns when that was. A code is good once, at all gateways together.
// Errors: Denied, with a text for the caller, Unavailable.
func (x *Identities) MFA(ctx context.Context, caller *iam.Principal, serial, code string) (time.Time, error) {
	d, err := x.look()
	if err != nil {
		return time.Time{}, err
	}
	e, ok := d.mfa[serial]
	if !ok || e.owner != caller.ARN || e.pending { // of others nothing is told
		return time.Time{}, errs.New(errs.Denied, "MultiFactorAuthentication failed, this user has no MFA device %s that is enabled", serial)
	}
	now := x.now()
	var refused error
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err = x.useMFA(ctx, e.key, func(u *mfaUse) bool {
		if rest := u.rests(now); rest > 0 {
			refused = errs.New(errs.Denied, "MultiFactorAuthentication failed after %d wrong codes, try again in %s", u.Failures, rest.Round(time.Second)+time.Second)
			return false
		}
		step := stepOf(e.secret, code, stepAt(now))
		if step <= u.Step { // wrong, or used before
			refused = errs.New(errs.Denied, "MultiFactorAuthentication failed with invalid MFA one time pass code. Each code is good once")
			u.Failures, u.At = u.Failures+1, now.Unix()
			return true
		}
		refused, *u = nil, mfaUse{Step: step}
		return true
	})
	if err != nil {
		return time.Time{}, errs.New(errs.Unavailable, "MFA codes cannot be checked at the moment: %w", err)
	}
	return now, refused
}

// useMFA changes what is remembered of a device, if change says so. Of gateways that do it at once, one is first.
func (x *Identities) useMFA(ctx context.Context, key string, change func(*mfaUse) bool) error {
	if x.store == nil { // identities are of a file, and gateways do not know of each other
		x.mfaMu.Lock()
		defer x.mfaMu.Unlock()
		u := x.mfaUsed[key]
		if change(&u) {
			x.mfaUsed[key] = u
		}
		return nil
	}
	keys, err := x.sessionKeys()
	if err != nil {
		return err
	}
	_, err = x.store.Update(ctx, key, func(old docstore.Doc) ([]byte, error) {
		var u mfaUse
		if len(old.Data) > 0 {
			text, err := keys.open(mfaPurpose, key, old.Data)
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(text, &u); err != nil {
				return nil, errs.New(errs.Invalid, "read what is remembered of an MFA device: %w", err)
			}
		}
		if !change(&u) {
			return nil, nil
		}
		text, err := json.Marshal(u)
		if err != nil {
			return nil, err
		}
		return keys.seal(mfaPurpose, key, text), nil
	})
	return err
}

// changeMFA makes, enables or deletes a device of a user. It returns the answer, and the step of the last code shown.
func (u *User) changeMFA(a *Account, method, id string, body []byte, now time.Time) (answer any, step int64, err error) {
	if method == http.MethodPost {
		in := struct {
			Name string `json:"name"`
		}{u.Name}
		if len(body) > 0 {
			if err := strictJSON(body, &in); err != nil {
				return nil, 0, err
			}
		}
		var secret [mfaSecretBytes]byte
		_, _ = rand.Read(secret[:]) // it never fails
		text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret[:])
		u.MFA = append(u.MFA, MFADevice{Name: in.Name, Secret: config.Secret(text), Pending: true, Created: now})
		uri := url.URL{Scheme: "otpauth", Host: "totp", Path: "/Amphora:" + a.ID + "-" + u.Name, RawQuery: url.Values{"secret": {text}, "issuer": {"Amphora"}}.Encode()}
		return map[string]string{"serial_number": a.serial(in.Name), "secret": text, "secret_uri": uri.String()}, 0, nil
	}
	i := slices.IndexFunc(u.MFA, func(m MFADevice) bool { return m.Name == id })
	if i < 0 {
		return nil, 0, errs.New(errs.NotFound, "user %s has no MFA device %q", u.Name, id)
	}
	if method == http.MethodDelete {
		u.MFA = slices.Delete(u.MFA, i, i+1)
		return struct{}{}, 0, nil
	}
	var in struct {
		Codes []string `json:"codes"`
	}
	if err := strictJSON(body, &in); err != nil {
		return nil, 0, err
	}
	secret, err := decodeMFA(u.MFA[i].Secret.Reveal())
	if err != nil {
		return nil, 0, err
	}
	if step = consecutive(secret, in.Codes, stepAt(now)); step == 0 {
		return nil, 0, errs.New(errs.Invalid, "codes are not two of the device that follow each other: wait for the next one, then send both")
	}
	u.MFA[i].Pending = false
	return map[string]string{"serial_number": a.serial(id)}, step, nil
}

// consecutive returns the step of the second of two codes that follow each other around now; 0: they do not.
func consecutive(secret []byte, codes []string, now int64) int64 {
	if len(codes) != 2 || !mfaCode.MatchString(codes[0]) || !mfaCode.MatchString(codes[1]) {
		return 0
	}
	for _, center := range []int64{now, now - 1, now - 2} { // the first is older by then
		if first := stepOf(secret, codes[0], center); first != 0 && subtle.ConstantTimeCompare([]byte(totp(secret, first+1)), []byte(codes[1])) == 1 {
			return first + 1
		}
	}
	return 0
}

// spendMFA marks the codes up to a step as used.
func (x *Identities) spendMFA(ctx context.Context, serial string, step int64) error {
	d, err := x.look()
	if err != nil {
		return err
	}
	e, ok := d.mfa[serial]
	if !ok {
		return nil // it was deleted meanwhile
	}
	return x.useMFA(ctx, e.key, func(u *mfaUse) bool {
		if step <= u.Step {
			return false
		}
		*u = mfaUse{Step: step}
		return true
	})
}

// forgetMFA deletes what is remembered of devices that are there no more, of whichever gateway's doing. Errors: those
// of the store.
func (x *Identities) forgetMFA(ctx context.Context) error {
	now := x.now()
	if x.store == nil || now.Sub(x.mfaSwept) < mfaKept {
		return nil
	}
	d, err := x.look()
	if err != nil {
		return err
	}
	entries, err := x.store.List(ctx, mfaPrefix)
	if err != nil {
		return err
	}
	kept := make(map[string]bool, len(d.mfa))
	for _, e := range d.mfa {
		kept[e.key] = true
	}
	for _, e := range entries {
		if kept[e.Key] || now.Sub(e.Modified) < mfaKept {
			continue
		}
		err := x.store.Delete(ctx, e.Key, e.Version)
		if kind := errs.KindOf(err); err != nil && kind != errs.NotFound && kind != errs.Conflict { // another gateway was faster
			return err
		}
	}
	x.mfaSwept = now
	return nil
}
