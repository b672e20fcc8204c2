package identity

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxAdminBytes bounds the body of an administration call.
const maxAdminBytes = 256 << 10

// Admin serves the administration API below /api/v1/iam/accounts; who may call it is decided before. A
// handler returns what went wrong, and leaves it to its caller to render that.
func (x *Identities) Admin(w http.ResponseWriter, r *http.Request) error {
	account, kind, name := r.PathValue("account"), r.PathValue("kind"), r.PathValue("name")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBytes))
	if err != nil {
		return errs.New(errs.BodyTooLarge, "body is larger than %d bytes", maxAdminBytes)
	}
	switch {
	case account == "":
		ids, err := x.Accounts(r.Context())
		if err != nil {
			return err
		}
		return answer(w, map[string]any{"accounts": ids})
	case kind == "" && r.Method == http.MethodGet:
		a, err := x.Stored(r.Context(), account)
		if err != nil {
			return err
		}
		return answer(w, a.shown())
	case kind == "":
		return x.changeAccount(w, r, account, body)
	case r.PathValue("of") != "":
		return x.changeCredential(w, r, account, body)
	}
	err = x.Change(r.Context(), account, func(a *Account) error { return a.changeEntity(r.Method, kind, name, body, x.now().UTC()) })
	if err != nil {
		return err
	}
	return answer(w, map[string]any{})
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(v)
}

// shown is a without the hashes of tokens; secrets have no text form anyway.
func (a *Account) shown() *Account {
	out := *a
	out.Users = slices.Clone(a.Users)
	for i := range out.Users {
		out.Users[i].Tokens = slices.Clone(out.Users[i].Tokens)
		for j := range out.Users[i].Tokens {
			out.Users[i].Tokens[j].Hash = ""
		}
	}
	return &out
}

// changeAccount makes an account with a root key, or gives an existing one another.
func (x *Identities) changeAccount(w http.ResponseWriter, r *http.Request, account string, body []byte) error {
	if r.Method != http.MethodPut {
		return errs.New(errs.Invalid, "accounts are made with PUT and not deleted")
	}
	var in struct {
		Name string `json:"name"`
	}
	if len(body) > 0 {
		if err := strictJSON(body, &in); err != nil {
			return err
		}
	}
	k := NewAccessKey()
	k.Created = x.now().UTC()
	err := x.Change(r.Context(), account, func(a *Account) error {
		a.Name = in.Name
		if len(a.RootKeys) >= MaxKeys {
			a.RootKeys = a.RootKeys[1:]
		}
		a.RootKeys = append(a.RootKeys, k)
		return nil
	})
	if err != nil {
		return err
	}
	return answer(w, map[string]string{"account": account, "access_key": k.ID, "secret_key": k.Secret.Reveal()})
}

// changeEntity puts or deletes a user, group, role, policy or provider.
func (a *Account) changeEntity(method, kind, name string, body []byte, now time.Time) error {
	if method != http.MethodPut && method != http.MethodDelete {
		return errs.New(errs.Invalid, "use PUT or DELETE")
	}
	put := method == http.MethodPut
	switch kind {
	case "users":
		return change(&a.Users, put, name, body, func(u *User) *string { return &u.Name }, func(next, old *User) {
			next.Keys, next.Tokens, next.MFA, next.ID, next.Created = old.Keys, old.Tokens, old.MFA, old.ID, old.Created
			if next.ID == "" {
				next.ID, next.Created = "AIDA"+strings.ToUpper(digest(now.String() + name)[:17]), now
			}
		})
	case "groups":
		return change(&a.Groups, put, name, body, func(g *Group) *string { return &g.Name }, func(_, _ *Group) {})
	case "roles":
		return change(&a.Roles, put, name, body, func(r *Role) *string { return &r.Name }, func(next, old *Role) {
			next.ID, next.Created = old.ID, old.Created
			if next.ID == "" {
				next.ID, next.Created = "AROA"+strings.ToUpper(digest(now.String() + name)[:17]), now
			}
		})
	case "policies":
		return change(&a.Policies, put, name, body, func(p *NamedPolicy) *string { return &p.Name }, func(_, _ *NamedPolicy) {})
	case "providers":
		if !strings.Contains(name, "://") {
			name = "https://" + name
		}
		return change(&a.Providers, put, name, body, func(p *Provider) *string { return &p.Issuer }, func(_, _ *Provider) {})
	}
	return errs.New(errs.NotFound, "there are no %s; there are users, groups, roles, policies and providers", kind)
}

// change puts or deletes the item of that name. What only the store knows of an item is kept.
func change[T any](items *[]T, put bool, name string, body []byte, nameOf func(*T) *string, keep func(next, old *T)) error {
	i := slices.IndexFunc(*items, func(item T) bool { return *nameOf(&item) == name })
	if !put {
		if i < 0 {
			return errs.New(errs.NotFound, "there is nothing with the name %q in the store", name)
		}
		*items = slices.Delete(*items, i, i+1)
		return nil
	}
	var next, old T
	if len(body) > 0 {
		if err := strictJSON(body, &next); err != nil {
			return err
		}
	}
	*nameOf(&next) = name
	if i >= 0 {
		old = (*items)[i]
	}
	keep(&next, &old)
	if i >= 0 {
		(*items)[i] = next
	} else {
		*items = append(*items, next)
	}
	return nil
}

// changeCredential makes, switches or deletes an access key, a token or an MFA device of a user.
func (x *Identities) changeCredential(w http.ResponseWriter, r *http.Request, account string, body []byte) error {
	name, of, id := r.PathValue("name"), r.PathValue("of"), r.PathValue("id")
	if r.PathValue("kind") != "users" || of != "keys" && of != "tokens" && of != "mfa" {
		return errs.New(errs.NotFound, "users have keys, tokens and mfa")
	}
	var out any
	var shown int64 // the step of the last code of a device
	err := x.Change(r.Context(), account, func(a *Account) (err error) {
		i := slices.IndexFunc(a.Users, func(u User) bool { return u.Name == name })
		if i < 0 {
			return errNoUser(name)
		}
		switch of {
		case "keys":
			out, err = a.Users[i].changeKey(r.Method, id, body, x.now().UTC())
		case "tokens":
			out, err = a.Users[i].changeToken(r.Method, id, body, x.now().UTC())
		default:
			out, shown, err = a.Users[i].changeMFA(a, r.Method, id, body, x.now().UTC())
		}
		return err
	})
	if err == nil && shown > 0 {
		err = x.spendMFA(r.Context(), (&Account{ID: account}).serial(id), shown)
	}
	if err != nil {
		return err
	}
	return answer(w, out)
}

// switched is the body that switches a credential.
type switched struct {
	Inactive bool `json:"inactive"`
}

func (u *User) changeKey(method, id string, body []byte, now time.Time) (any, error) {
	if method == http.MethodPost {
		k := NewAccessKey()
		k.Created = now
		u.Keys = append(u.Keys, k)
		return map[string]string{"access_key": k.ID, "secret_key": k.Secret.Reveal()}, nil
	}
	i := slices.IndexFunc(u.Keys, func(k AccessKey) bool { return k.ID == id })
	if i < 0 {
		return nil, errs.New(errs.NotFound, "user %s has no access key %q", u.Name, id)
	}
	if method == http.MethodDelete {
		u.Keys = slices.Delete(u.Keys, i, i+1)
		return struct{}{}, nil
	}
	var in switched
	if err := strictJSON(body, &in); err != nil {
		return nil, err
	}
	u.Keys[i].Inactive = in.Inactive
	return struct{}{}, nil
}

func (u *User) changeToken(method, id string, body []byte, now time.Time) (any, error) {
	if method == http.MethodPost {
		t, text := newToken()
		var in struct {
			Description, Workspace string
			Scopes                 []string
			Expires                time.Time
		}
		if len(body) > 0 {
			if err := strictJSON(body, &in); err != nil {
				return nil, err
			}
		}
		t.Description, t.Workspace, t.Scopes, t.Expires, t.Created = in.Description, in.Workspace, in.Scopes, in.Expires, now
		u.Tokens = append(u.Tokens, t)
		return map[string]string{"id": t.ID, "token": text}, nil
	}
	i := slices.IndexFunc(u.Tokens, func(t Token) bool { return t.ID == id })
	if i < 0 {
		return nil, errs.New(errs.NotFound, "user %s has no token %q", u.Name, id)
	}
	if method == http.MethodDelete {
		u.Tokens = slices.Delete(u.Tokens, i, i+1)
		return struct{}{}, nil
	}
	var in switched
	if err := strictJSON(body, &in); err != nil {
		return nil, err
	}
	u.Tokens[i].Inactive = in.Inactive
	return struct{}{}, nil
}
