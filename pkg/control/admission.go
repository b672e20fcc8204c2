package control

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/google/uuid"
)

// newcomer is a workspace or a scraper that a call makes in the caller's account.
type newcomer struct {
	operation, token, hash string
	kind, prefix           string                  // of its ARN, and of its id
	among                  func(*account) *[]entry // those of the account that are of its kind
	most                   int                     // so many there may be; 0: no limit
	full                   error                   // what to answer if there are
	answer                 any                     // a pointer to what the call answers
	name                   func(id, arn string)    // puts them into it
	id                     func() (fromAnswer string)
}

// admit gives a newcomer its id, in the same swap that checks the quota and keeps the client token. It says when the
// newcomer was made; ok is false if the answer is that of an earlier call and what it made is gone.
func (c *Control) admit(ctx context.Context, x *call, n *newcomer) (made entry, ok bool, err error) {
	now := c.now()
	a, err := update(ctx, c, accountKey(x.account), func(a *account, _ bool) (bool, error) {
		old, again, err := a.Tokens.find(n.token, n.operation, n.hash)
		if err != nil {
			return false, conflict(n.kind, "", err.Error())
		}
		if again {
			return false, json.Unmarshal(old, n.answer)
		}
		all := n.among(a)
		if n.most > 0 && len(*all) >= n.most {
			return false, n.full
		}
		id := n.prefix + uuid.NewString()
		n.name(id, c.arn(x.account, n.kind, id))
		*all = append(*all, entry{id, after(*all, now)})
		raw, err := json.Marshal(n.answer)
		if err != nil {
			return false, err
		}
		a.Tokens.keep(n.token, token{n.operation, n.hash, raw, now})
		return true, nil
	})
	if err != nil {
		return entry{}, false, err
	}
	all := *n.among(a)
	i := slices.IndexFunc(all, func(e entry) bool { return e.ID == n.id() })
	if i < 0 {
		return entry{}, false, nil
	}
	return all[i], true, nil
}
