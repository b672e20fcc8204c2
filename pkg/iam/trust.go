package iam

import "strings"

// Trusts says whether r.Policy, the trust policy of a role, lets the principal take it on. If it names the
// principal itself that is enough within one account; if it names the account, or belongs to another
// one, the principal's own policies must allow it, too.
func Trusts(r *Request) bool {
	action := strings.ToLower(r.Action)
	trust := gather(r, []*Policy{r.Policy}, action, r.Principal)
	own := gather(r, r.Principal.Policies, action, nil)
	if trust.denied || own.denied || !trust.allowed {
		return false
	}
	for _, limit := range [][]*Policy{{r.Principal.Boundary}, r.Principal.Sessions} {
		if limit != nil && limit[0] != nil && !gather(r, limit, action, nil).allowed {
			return false
		}
	}
	if r.Principal.Federated != "" {
		return trust.named
	}
	own.allowed = own.allowed || r.Principal.Root
	return own.allowed || trust.named && r.Account == r.Principal.Account
}
