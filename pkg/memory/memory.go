// Package memory owns the memory budget of a process: how much it may use, who uses how much of it,
// and who is refused more when it runs short. Refusing in time, in the order new series, reads,
// writes, keeps the process from being killed.
//
// Whoever is about to use much memory reserves it. Unreserved memory counts as well: after each
// garbage collection the ledger compares reservations with actual use, and deducts the difference
// from what is left.
package memory

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Ledger is the budget of one process. A nil Ledger bounds nothing. As a service it watches the
// memory really in use and has caches shrink; reservations work before it is started, too.
type Ledger struct {
	services.Service

	limits   Limits
	log      *slog.Logger
	look     func() usage
	collect  func()           // runs the garbage collector
	now      func() time.Time // of the watch
	accounts [numUses]Account

	reserved atomic.Int64 // by all accounts
	// beside is what is in use and not reserved, as of the last look.
	beside atomic.Int64
	level  atomic.Int32 // a class: it and those before it are over their lines; -1: none

	wake chan struct{} // has a token when somebody was refused or garbage was collected

	shrinkersMu sync.Mutex // guards shrinkers
	shrinkers   []func()

	watch  watch
	pacing pacing

	workings Workings
}

// Account is the memory of one use. Its methods are safe for concurrent use, cost two atomic
// additions, and do nothing on a nil Account.
type Account struct {
	ledger  *Ledger
	use     Use
	line    int64 // bytes in use from which on the account gets no more
	refusal error // made once: refusals are many when they come
	held    atomic.Int64
	refused atomic.Int64
}

// Deps are what a Ledger needs from the process.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer // nil: metrics are not exposed
}

// New returns a ledger over limits, not started.
func New(limits Limits, deps Deps) *Ledger {
	l := &Ledger{pacing: newPacing(), limits: limits, log: deps.Logger, look: lookAtRuntime(), collect: collectGarbage, now: time.Now, wake: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for u := range numUses {
		a := &l.accounts[u]
		row := u.row()
		a.ledger, a.use, a.line = l, u, limits.line(row.class)
		a.refusal = errs.WithID(errs.Unavailable, "memory-limit", "Try again later, give the process more memory, or raise -memory.limit.",
			"the process is short of memory for %s: it may use %d bytes, and %s from %d bytes on", row.name, limits.Process, row.class.row().then, a.line)
	}
	l.workings.account, l.workings.running = &l.accounts[Queries], map[*Working]struct{}{}
	l.level.Store(noLevel)
	l.observe(l.look())
	newMetrics(deps.Reg, l)
	l.Service = services.NewBasicService(nil, l.running, nil).WithName("memory")
	return l
}

// Account returns the account of u.
func (l *Ledger) Account(u Use) *Account {
	if l == nil {
		return nil
	}
	return &l.accounts[u]
}

// Part returns part (0..1) of what the Go runtime may use, in bytes, for bounds that are derived;
// without a ledger, of what a machine is assumed to have.
func (l *Ledger) Part(part float64) int64 {
	if l == nil {
		return int64(assumedBytes * part)
	}
	return int64(float64(l.limits.Go) * part)
}

// inUse is what is reserved and what is in use beside it, in bytes.
func (l *Ledger) inUse() int64 { return l.reserved.Load() + l.beside.Load() }

// Reserve takes n bytes, or nothing. Errors: Unavailable. Whoever got them releases them.
func (a *Account) Reserve(n int64) error {
	if a == nil {
		return nil
	}
	l := a.ledger
	if l.reserved.Add(n)+l.beside.Load() > a.line && n > 0 {
		l.reserved.Add(-n)
		a.refused.Add(1)
		l.wakeUp()
		return a.refusal
	}
	a.held.Add(n)
	return nil
}

// Take takes n bytes however short the process is, for what is owed.
func (a *Account) Take(n int64) {
	if a == nil {
		return
	}
	a.ledger.reserved.Add(n)
	a.held.Add(n)
}

// Release gives n bytes back.
func (a *Account) Release(n int64) { a.Take(-n) }

// Short says whether the account would be refused now.
func (a *Account) Short() bool { return a != nil && a.ledger.inUse() > a.line }

// Room is Reserve for somebody who takes later, or whose use is not worth counting. Errors:
// Unavailable.
func (a *Account) Room() error {
	if !a.Short() {
		return nil
	}
	a.refused.Add(1)
	a.ledger.wakeUp()
	return a.refusal
}

// Held is how many bytes are reserved.
func (a *Account) Held() int64 {
	if a == nil {
		return 0
	}
	return a.held.Load()
}

// OnPressure has shrink called, from one goroutine and at most once a second, while more is in use
// than caches may add to. It must be quick.
func (l *Ledger) OnPressure(shrink func()) {
	if l == nil {
		return
	}
	l.shrinkersMu.Lock()
	defer l.shrinkersMu.Unlock()
	l.shrinkers = append(l.shrinkers, shrink)
}

func (l *Ledger) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// loanStep is how much a Loan takes at least: so that small uses rarely touch the account.
const loanStep = 256 << 10

// Loan is what one request holds of an account. It grows with what the request uses and is
// returned as a whole. It is not safe for concurrent use. The zero Loan is bounded by nothing.
type Loan struct {
	account    *Account
	used, held int64
}

// Loan returns an empty loan of a.
func (a *Account) Loan() Loan { return Loan{account: a} }

// Use adds n bytes to what the request uses. Errors: Unavailable; then n is not added.
func (l *Loan) Use(n int64) error {
	if need := l.used + n - l.held; need > 0 {
		step := max(need, loanStep)
		if err := l.account.Reserve(step); err != nil {
			return err
		}
		l.held += step
	}
	l.used += n
	return nil
}

// Return gives everything back; the loan can be used again.
func (l *Loan) Return() {
	l.account.Release(l.held)
	l.used, l.held = 0, 0
}
