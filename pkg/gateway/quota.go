package gateway

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// family groups actions that share an allowance of calls.
type family uint8

const (
	writes family = iota
	reads
	workspaceCalls
	alertmanagerCalls
	tokenCalls
	processCalls
)

// familyOf says whose allowance a call uses.
func familyOf(action string) family {
	service, name, _ := strings.Cut(action, ":")
	switch {
	case service == "sts":
		return tokenCalls
	case name == "RemoteWrite":
		return writes
	case strings.Contains(name, "AlertManager"):
		return alertmanagerCalls
	case isData(action):
		return reads
	case service == "amphora":
		return processCalls
	}
	return workspaceCalls
}

// quotas are the allowances of accounts.
type quotas struct {
	rates map[family]float64 // calls a second; 0: no limit
	room  int                // seconds of calls that may come at once

	mu      sync.Mutex // guards buckets
	buckets map[quotaName]*rate.Limiter
}

type quotaName struct {
	account string
	family  family
}

func newQuotas(c *Config) *quotas {
	return &quotas{
		rates:   map[family]float64{writes: c.WriteRate, reads: c.ReadRate, workspaceCalls: c.WorkspaceRate, alertmanagerCalls: c.AlertmanagerRate, tokenCalls: c.TokenRate, processCalls: c.ProcessRate},
		buckets: map[quotaName]*rate.Limiter{}, room: 1,
	}
}

// take uses one call of the account's allowance. Accounts are those of the directory, so there are few.
func (q *quotas) take(account, action string, now time.Time) error {
	f := familyOf(action)
	per := q.rates[f]
	if per <= 0 {
		return nil
	}
	q.mu.Lock()
	b := q.buckets[quotaName{account, f}]
	if b == nil {
		b = rate.NewLimiter(rate.Limit(per), max(1, int(per))*q.room)
		q.buckets[quotaName{account, f}] = b
	}
	q.mu.Unlock()
	if b.AllowN(now, 1) {
		return nil
	}
	return refuse(http.StatusTooManyRequests, codeThrottled, "Rate exceeded: account %s may make %g calls of this kind a second", account, per)
}

// Allowance holds accounts to their calls a second in a process that a gateway may stand before, or not.
type Allowance struct{ quotas *quotas }

// NewAllowance returns nil if callers are not asked who they are: then nobody has an allowance.
func NewAllowance(c *Config) *Allowance {
	if !c.Enabled {
		return nil
	}
	q := newQuotas(c)
	q.room = 2 // a gateway lets calls through that come here a little closer together
	return &Allowance{q}
}

// Take uses one call. Errors: RateLimited.
func (a *Allowance) Take(account, action string) error {
	if err := a.quotas.take(account, action, time.Now()); err != nil {
		return errs.Wrap(errs.RateLimited, err)
	}
	return nil
}

// guesses slows down who sends wrong credentials, by address, and by address and the id that was tried,
// so that one wrong client does not shut out others behind the same address.
type guesses struct {
	per float64 // a minute, of one id; 0: no limit

	mu         sync.Mutex // guards what follows
	young, old map[string]*rate.Limiter
}

const (
	// guessers is how many addresses and ids are remembered at least.
	guessers = 20_000
	// addressFactor is how much more one address may get wrong than one id from it.
	addressFactor = 10
)

func newGuesses(per float64) *guesses { return &guesses{per: per, young: map[string]*rate.Limiter{}} }

// bucket returns that of a name; make says whether to begin one. It needs g.mu.
func (g *guesses) bucket(name string, per float64, begin bool) *rate.Limiter {
	if b := g.young[name]; b != nil {
		return b
	}
	b := g.old[name]
	if b == nil && !begin {
		return nil
	}
	if b == nil {
		b = rate.NewLimiter(rate.Limit(per/60), max(1, int(per)))
	}
	if len(g.young) >= guessers {
		g.old, g.young = g.young, map[string]*rate.Limiter{}
	}
	g.young[name] = b
	return b
}

// place is what addresses are counted by: one network of IPv6 has more addresses than can be counted.
func place(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.Is6() || a.Is4In6() {
		return address
	}
	const network = 64
	p, _ := a.WithZone("").Prefix(network) // an address of IPv6 has as many bits
	return p.String()
}

// check refuses who has failed too often.
func (g *guesses) check(address, id string, now time.Time) error {
	if g.per <= 0 {
		return nil
	}
	address = place(address)
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, per := range map[string]float64{address: g.per * addressFactor, address + " " + id: g.per} {
		if b := g.bucket(name, per, false); b != nil && b.TokensAt(now) < 1 {
			return refuse(http.StatusTooManyRequests, codeThrottled, "too many wrong credentials, try again later")
		}
	}
	return nil
}

// failed counts a failure.
func (g *guesses) failed(address, id string, now time.Time) {
	if g.per <= 0 {
		return
	}
	address = place(address)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bucket(address, g.per*addressFactor, true).AllowN(now, 1)
	g.bucket(address+" "+id, g.per, true).AllowN(now, 1)
}
