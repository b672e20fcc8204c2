package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// documentsPrefix is where accounts lie among the documents, one document each.
const (
	documentsPrefix = "iam/accounts/"
	documentPurpose = "identities"
)

// stored is what a document holds. Secrets stand beside the account, whose text form has none.
type stored struct {
	Account Account           `json:"account"`
	Secrets map[string]string `json:"secrets"` // by access key, or mfaSecret and the name of a device
}

// mfaSecret begins no access key.
const mfaSecret = "mfa/"

// known is an account as it was last read from the store.
type known struct {
	version docstore.Version
	account *Account
}

// encode seals a for the document of that key.
func (x *Identities) encode(key string, a *Account) ([]byte, error) {
	s := stored{Account: *a, Secrets: map[string]string{}}
	for _, k := range a.allKeys() {
		s.Secrets[k.ID] = k.Secret.Reveal()
	}
	for _, m := range a.allMFA() {
		s.Secrets[mfaSecret+m.Name] = m.Secret.Reveal()
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode account %s: %w", a.ID, err)
	}
	keys := x.keys.Load()
	if keys == nil {
		return nil, errNoKeys()
	}
	return keys.seal(documentPurpose, key, text), nil
}

// decode opens the document of that key. Errors: Invalid.
func (x *Identities) decode(key string, data []byte) (*Account, error) {
	keys := x.keys.Load()
	if keys == nil {
		return nil, errNoKeys()
	}
	text, err := keys.open(documentPurpose, key, data)
	if err != nil {
		return nil, fmt.Errorf("read identities of %s: %w", key, err)
	}
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, errs.New(errs.Invalid, "read identities of %s: %w", key, err)
	}
	a := &s.Account
	for _, k := range a.allKeys() {
		k.Secret = config.Secret(s.Secrets[k.ID])
	}
	for _, m := range a.allMFA() {
		m.Secret = config.Secret(s.Secrets[mfaSecret+m.Name])
	}
	return a, nil
}

func errNoKeys() error {
	return errs.New(errs.Unavailable, "the operator's key is not known yet")
}

// allKeys returns every access key of a, to be read or changed in place.
func (a *Account) allKeys() []*AccessKey {
	var out []*AccessKey
	for i := range a.RootKeys {
		out = append(out, &a.RootKeys[i])
	}
	for i := range a.Users {
		for j := range a.Users[i].Keys {
			out = append(out, &a.Users[i].Keys[j])
		}
	}
	return out
}

// allMFA returns every MFA device of a, to be read or changed in place.
func (a *Account) allMFA() []*MFADevice {
	var out []*MFADevice
	for i := range a.Users {
		for j := range a.Users[i].MFA {
			out = append(out, &a.Users[i].MFA[j])
		}
	}
	return out
}

// readStore brings x.stored up to date, and notes that it changed for whoever makes a directory of it next: it may be
// called for a list alone. It needs x.mu.
func (x *Identities) readStore(ctx context.Context) error {
	if x.store == nil {
		return nil
	}
	entries, err := x.store.List(ctx, documentsPrefix)
	if err != nil {
		return fmt.Errorf("list identities: %w", err)
	}
	changed := len(entries) != len(x.stored)
	next := make(map[string]known, len(entries))
	for _, e := range entries {
		if old, ok := x.stored[e.Key]; ok && old.version == e.Version {
			next[e.Key] = old
			continue
		}
		changed = true
		doc, err := x.store.Get(ctx, e.Key)
		if errs.KindOf(err) == errs.NotFound && err != nil {
			continue // it went meanwhile
		}
		if err != nil {
			return fmt.Errorf("read identities: %w", err)
		}
		a, err := x.decode(e.Key, doc.Data)
		if err != nil {
			return err
		}
		next[e.Key] = known{doc.Version, a}
	}
	x.stored, x.changed = next, x.changed || changed
	return nil
}

// merged returns the accounts of the file and those of the store; what both have of one account is
// put together.
func merged(file []*Account, store map[string]known) []*Account {
	out := slices.Clone(file)
	keys := make([]string, 0, len(store))
	for k := range store {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		a := store[k].account
		i := slices.IndexFunc(out, func(f *Account) bool { return f.ID == a.ID })
		if i < 0 {
			out = append(out, a)
			continue
		}
		both := *out[i]
		both.RootKeys = slices.Concat(both.RootKeys, a.RootKeys)
		both.Users = slices.Concat(both.Users, a.Users)
		both.Groups = slices.Concat(both.Groups, a.Groups)
		both.Roles = slices.Concat(both.Roles, a.Roles)
		both.Policies = slices.Concat(both.Policies, a.Policies)
		both.Providers = slices.Concat(both.Providers, a.Providers)
		out[i] = &both
	}
	return out
}

// Change changes the stored part of an account, which is made if it does not exist, and returns when
// this process knows the change; others know it within the refresh interval. What would leave the
// directory wrong is refused. Errors: those of change, Invalid, Conflict, Unavailable.
func (x *Identities) Change(ctx context.Context, account string, change func(*Account) error) error {
	if x.store == nil {
		return errs.New(errs.Unimplemented, "identities come from a file only")
	}
	if !accountID.MatchString(account) {
		return errs.New(errs.Invalid, "account id %q is not 12 digits", account)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.readStore(ctx); err != nil {
		return err
	}
	key := documentsPrefix + account
	_, err := x.store.Update(ctx, key, func(old docstore.Doc) ([]byte, error) {
		a := &Account{ID: account}
		if len(old.Data) > 0 {
			var err error
			if a, err = x.decode(key, old.Data); err != nil {
				return nil, err
			}
		}
		if err := change(a); err != nil {
			return nil, err
		}
		next := map[string]known{}
		for k, v := range x.stored {
			next[k] = v
		}
		next[key] = known{account: a}
		if _, err := newDirectory(merged(x.file, next)); err != nil {
			return nil, err
		}
		return x.encode(key, a)
	})
	if err != nil {
		return err
	}
	return x.reload(ctx)
}

// Stored returns the stored part of an account, without secrets. Errors: NotFound.
func (x *Identities) Stored(ctx context.Context, account string) (*Account, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.readStore(ctx); err != nil {
		return nil, err
	}
	k, ok := x.stored[documentsPrefix+account]
	if !ok {
		return nil, errs.New(errs.NotFound, "there is no account %s in the store", account)
	}
	return k.account, nil
}

// Accounts returns the ids of the stored accounts.
func (x *Identities) Accounts(ctx context.Context) ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.readStore(ctx); err != nil {
		return nil, err
	}
	ids := []string{}
	for _, k := range x.stored {
		ids = append(ids, k.account.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// bootstrap makes the operator's account with a root key, if there is no account at all, and writes the
// key to a file that only its owner can read: it is shown nowhere else. Of several processes one wins.
func (x *Identities) bootstrap(ctx context.Context) error {
	if x.store == nil || x.cfg.RootFile == "" || x.operator == "" {
		return nil
	}
	k := NewAccessKey()
	k.Created = x.now().UTC()
	a := &Account{ID: x.operator, RootKeys: []AccessKey{k}}
	key := documentsPrefix + a.ID
	data, err := x.encode(key, a)
	if err != nil {
		return err
	}
	// The file is first: a key that nobody was told would lock everybody out.
	text := "# Root credential of account " + a.ID + ". Keep it, make users with it, then delete this file.\n[default]\naws_access_key_id = " + k.ID +
		"\naws_secret_access_key = " + k.Secret.Reveal() + "\n"
	if err := os.MkdirAll(filepath.Dir(x.cfg.RootFile), 0o700); err != nil {
		return fmt.Errorf("write the root credential: %w", err)
	}
	next := x.cfg.RootFile + ".new"
	_ = os.Remove(next) // of an earlier try
	if err := writeNew(next, []byte(text)); err != nil {
		return fmt.Errorf("write the root credential: %w", err)
	}
	if _, err := x.store.Put(ctx, key, data, ""); err != nil {
		_ = os.Remove(next) // somebody else was first, or it is tried again
		if errs.KindOf(err) == errs.Conflict {
			return nil
		}
		return fmt.Errorf("store the first account: %w", err)
	}
	if err := os.Rename(next, x.cfg.RootFile); err != nil {
		return fmt.Errorf("write the root credential: %w", err)
	}
	x.log.Info("first start: the root credential of the operator's account was written to a file", "account", a.ID, "file", x.cfg.RootFile)
	return nil
}

// NewAccessKey returns a random key pair.
func NewAccessKey() AccessKey {
	var id [10]byte
	var secret [30]byte
	_, _ = rand.Read(id[:]) // it never fails
	_, _ = rand.Read(secret[:])
	return AccessKey{ID: "AKIA" + base32.StdEncoding.EncodeToString(id[:]), Secret: config.Secret(base64.RawStdEncoding.EncodeToString(secret[:]))}
}

// newToken returns a random bearer token, which is told once, and how it is kept.
func newToken() (Token, string) {
	var id [5]byte
	var secret [30]byte
	_, _ = rand.Read(id[:]) // it never fails
	_, _ = rand.Read(secret[:])
	text := "amt_" + base64.RawURLEncoding.EncodeToString(secret[:])
	return Token{ID: "tok-" + strings.ToLower(base32.StdEncoding.EncodeToString(id[:])), Hash: digest(text)}, text
}

// errNoUser is for changes of who does not exist.
func errNoUser(name string) error {
	return errs.New(errs.NotFound, "there is no user %q in the store", name)
}

// strictJSON decodes one value and refuses members it does not know.
func strictJSON(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return errs.New(errs.Invalid, "body is not the JSON that is asked for: %w", errors.Unwrap(fmt.Errorf("%w", err)))
	}
	return nil
}
